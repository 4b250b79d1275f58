"""The accelerators' table: one row a target, in the runtime that is its own."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from results import SCHEMA, cells, figures, validation

import deploy
from deploy.errors import ReportError
from deploy.report.accelerators import accelerator_lines, accelerator_rows, say_memory
from deploy.report.build import build_report
from deploy.report.write import render_html, render_markdown

FOOTPRINT = {
    "ddr_read_bytes": 7_309_312,
    "ddr_write_bytes": 1_490_944,
    "spilled_bytes": 163_840,
    "fast_memory_bytes": 8_388_608,
    "context_bytes": 4_060_000,
}


def on_htp() -> dict[str, Any]:
    """Return what validation in the emulator gives: our graph and the vendor's, no latency."""
    result = validation()
    ours = figures("int8", True) | {"footprint": FOOTPRINT, "latency_ms": None}
    vendors = ours | {"miou": 0.5811, "agreement": 0.9571, "sqnr_db": 23.46}
    results = {"torch": figures("torch", True), "int8-qnn": ours, "int8-qnn-vendor": vendors}
    return result | {
        "runtime": "qnn",
        "soc": "sm8550",
        "dataset": result["dataset"] | {"images": 48},
        "command": "deploy validate rf-lw-mbv2 --runtime qnn --limit 48",
        "results": results,
        "layers": None,
    }


def report() -> dict[str, Any]:
    return build_report([validation()], {"rf-lw-mbv2": [on_htp()]})


def test_each_target_has_a_row_in_its_own_runtime() -> None:
    rows = accelerator_rows([validation(), on_htp()])
    assert [(r["target"], r["runtime"], r["soc"], r["images"]) for r in rows] == [
        ("ort", "onnxruntime", None, 50),
        ("qnn", "qnn", "sm8550", 48),
    ]
    assert [r["vendor"] and r["vendor"]["sqnr_db"] for r in rows] == [None, 23.46]


def test_arms_onnxruntime_has_a_row_for_each_graph_that_a_board_may_get() -> None:
    ours = figures("int8", True) | {"latency_ms": None}
    names = ("int8", "int8-vendor", "int8-ort-arm", "int8-qnn")
    results = {"torch": figures("torch", True)} | dict.fromkeys(names, ours)
    on_arm = validation() | {"runtime": "onnxruntime-arm", "soc": "cortex-a72", "results": results}
    rows = accelerator_rows([on_arm])
    assert [(row["target"], row["soc"], bool(row["vendor"])) for row in rows] == [
        ("ort", "cortex-a72", True),
        ("ort-arm", "cortex-a72", False),
    ]


def test_a_graph_in_another_runtime_than_its_own_has_no_row() -> None:
    elsewhere = validation() | {"runtime": "openvino"}
    assert accelerator_rows([elsewhere]) == []


def test_the_report_holds_to_its_schema_and_leaves_vendors_graphs_to_the_table() -> None:
    result = validation()
    result["results"]["int8-vendor"] = figures("int8", True) | {"sqnr_db": 21.0}
    content = build_report([result], {"rf-lw-mbv2": [on_htp()]})
    jsonschema.validate(content, SCHEMA)
    variant = content["variants"]["rf-lw-mbv2"]
    assert "int8-vendor" not in variant["results"]
    assert variant["accelerators"][0]["vendor"]["sqnr_db"] == 21.0


def test_lines_set_ours_beside_the_vendors() -> None:
    ort, qnn = accelerator_lines(report())
    assert (ort["target"], ort["runtime"], ort["sqnr"]) == ("ort", "onnxruntime", ("25.8", None))
    assert (qnn["target"], qnn["runtime"], qnn["images"]) == ("qnn", "qnn, sm8550", 48)
    assert qnn["sqnr"] == ("25.8", "23.5")
    assert qnn["convolutions"] == ("78 of 78", "78 of 78")
    memory = "DDR read 7.3 MB, written 1.5 MB, on-chip memory 8.4 MB, context 4.1 MB"
    assert qnn["memory"] == memory
    assert say_memory(None) == ""


def test_page_and_markdown_show_the_table() -> None:
    page, text = cells(render_html(report(), {})), render_markdown(report())
    assert "qnn qnn, sm8550 48 59.35 58.11 1.74 [−0.31, 3.45] 1.74 [−0.31, 3.45] 97.80" in page
    assert "rf-lw-mbv2 on qnn, sm8550: DDR read 7.3 MB" in page
    assert "A chip's name says that it was emulated" in text
    row = "| rf-lw-mbv2 | qnn | qnn, sm8550 | 48 | 59.35 (58.11) |"
    assert row in text


def test_without_accelerators_there_is_no_section() -> None:
    content = build_report([validation() | {"runtime": "openvino"}])
    assert "Accelerators" not in render_html(content, {})
    assert "## Accelerators" not in render_markdown(content)


@pytest.mark.parametrize("damage", [{"results": {"int8-qnn": {}}}, {"soc": 3}, {"schema": 4}])
def test_damaged_results_of_another_runtime_are_one_line(
    damage: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "rf-lw-mbv2"
    folder.mkdir()
    (folder / "validation.json").write_text(json.dumps(validation()))
    (folder / "validation-qnn-sm8550.json").write_text(json.dumps(on_htp()))
    assert len(deploy.report(out=tmp_path)["variants"]["rf-lw-mbv2"]["accelerators"]) == 2
    (folder / "validation-qnn-sm8550.json").write_text(json.dumps(on_htp() | damage))
    with pytest.raises(ReportError, match=r"validation-qnn-sm8550.json has "):
        deploy.report(out=tmp_path)
