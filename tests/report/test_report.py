import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from results import SCHEMA, cells, validation

from deploy.errors import ReportError
from deploy.report.build import build_report
from deploy.report.plots import _shortened, plot_classes, plot_layers, worst_layers
from deploy.report.verdict import Status, verdict
from deploy.report.write import render_html, render_markdown, write_report

MIXED = [validation("rf101", "random"), validation("rf-lw-mbv2")]
RANDOM_ROW = "| RefineNet-ResNet101 | random | – | – | – | – | – | – | 80.5 |"
TRAINED_ROW = (
    "| RefineNet-LW-MobileNetv2 | repository | 61.09 | 61.09 | 61.10 | 59.35 "
    "| 1.74 [−0.31, 3.45] | 97.15 [94.25, 100.51] | 76.2 |"
)
COST = {"value": 0.0174, "low": -0.0031, "high": 0.0345}
STEP = {
    "recipe": "fast", "float_layers": 0, "int8_share_of_macs": 1.0, "miou": 0.6, "held": False,
    "miou_drop": COST, "miou_ratio": {"value": 0.97, "low": 0.95, "high": 1.01},
    "agreement": 0.99, "sqnr_db": 33.0, "latency_ms": 60.0,
}  # fmt: skip


def page(*results: dict[str, Any]) -> str:
    return cells(render_html(build_report(results), {}))


def lines(*results: dict[str, Any]) -> list[tuple[str, str]]:
    return [(line.status.value, line.text) for line in verdict(build_report(results))]


def gated(held: bool) -> dict[str, Any]:
    passing = STEP | {"float_layers": 2, "int8_share_of_macs": 0.912, "held": True}
    return validation() | {
        "gate": {
            "gate": {"min_ratio": 0.99, "max_drop": None}, "target": "ort", "tuning_images": 40,
            "steps": [STEP, passing] if held else [STEP], "float_layers": ["a", "b"],
            "evaluated_images": 216 if held else 0, "confirmed": passing if held else None,
            "held": held,
        }
    }  # fmt: skip


def with_drop(low: float | None, high: float | None, name: str = "rf-lw-mbv2") -> dict[str, Any]:
    result = validation(name)
    value = 0.0174 if low is None or high is None else (low + high) / 2
    result["results"]["int8"]["miou_drop"] = {"value": value, "low": low, "high": high}
    return result


def test_report_without_results_is_refused() -> None:
    with pytest.raises(ReportError, match="no validation results yet"):
        build_report([])


def test_report_shows_no_accuracy_of_random_parameters(tmp_path: Path) -> None:
    write_report(build_report(MIXED), tmp_path)
    markdown = (tmp_path / "report.md").read_text()
    assert RANDOM_ROW in markdown
    assert "| rf101 | int8 | 97.80 | 25.8 | – | 100.0 | 1.00 | 13.1 |" in markdown
    assert "**random**: seeded random parameters, which have no accuracy" in markdown
    assert "Worst classes of rf101" not in markdown
    text = cells((tmp_path / "report.html").read_text())
    assert "8.27 GMACs, 3.28 M parameters random – – – – – 80.5" in text
    assert "rf101 random torch" in text
    assert "int8 97.80 25.8 0.9984 – – 78 of 78 100.0" in text
    assert "Classes: rf101" not in text
    assert "Layer by layer: rf101 random parameters" in text
    variant = json.loads((tmp_path / "report.json").read_text())["variants"]["rf101"]
    assert variant["weights"]["source"] == "random"
    assert variant["results"]["int8"]["miou"] is None
    assert variant["results"]["int8"]["cosine"] == 0.99837


def test_report_shows_each_drop_with_its_interval(tmp_path: Path) -> None:
    write_report(build_report(MIXED), tmp_path)
    markdown = (tmp_path / "report.md").read_text()
    assert TRAINED_ROW in markdown
    assert "| rf-lw-mbv2 | int8 | 97.80 | 25.8 | 1.74 [−0.31, 3.45] |" in markdown
    assert "95% interval over 1,000 resamples" in markdown
    text = cells((tmp_path / "report.html").read_text())
    drops = "61.09 61.09 0.00 [−2.05, 1.71] 61.10 −0.01 [−2.06, 1.70] 59.35 1.74 [−0.31, 3.45]"
    assert f"{drops} 97.15 [94.25, 100.51] 76.2 74.48, 72.84" in text
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["schema"] == 5
    drop = content["variants"]["rf-lw-mbv2"]["results"]["int8"]["miou_drop"]
    assert drop == pytest.approx(COST)


def test_report_has_a_column_for_each_targets_graph() -> None:
    result = validation()
    result["results"]["int8-tensorrt"] = result["results"]["int8"] | {"miou": 0.5}
    markdown = render_markdown(build_report([result, validation("rf101", "random")]))
    assert "| INT8 | INT8 tensorrt |" in markdown
    assert "| 59.35 | 50.00 |" in markdown
    assert "INT8 INT8 tensorrt ratio, %" in page(result)


def test_report_shows_what_the_gate_tried() -> None:
    text = page(gated(held=True))
    assert "fast 2 91.2 1.74 [−0.31, 3.45] 97.00 [95.00, 101.00] 99.00 33.0 60.0 yes" in text
    assert "ratio at least 0.99: holds" in text
    assert "Tried on 40 images" in text


def test_verdict_comes_first_and_says_that_a_gate_holds() -> None:
    ((status, text),) = lines(gated(held=True))
    assert status == "pass"
    assert text.startswith("rf-lw-mbv2 int8: the gate holds (ratio at least 0.99).")
    assert "drops 1.74 [-0.31, 3.45] points on 216 images" in text
    shown = page(gated(held=True))
    assert shown.index("the gate holds") < shown.index("mIoU beside")
    assert render_markdown(build_report([gated(held=True)])).split("\n")[2].startswith("- **PASS**")


def test_verdict_of_a_missed_gate_stands_before_all_else() -> None:
    missed = gated(held=False)
    del missed["results"]["int8"]
    found = lines(validation("rf-lw50"), missed, validation("rf101", "random"))
    assert [status for status, _ in found] == ["fail", "note", "note"]
    assert "is missed" in found[0][1]
    assert "int8-missed.onnx" in found[0][1]


@pytest.mark.parametrize(
    ("low", "high", "meaning"),
    [
        (-0.01, 0.02, "holds 0"),
        (0.01, 0.02, "above 0"),
        (-0.02, -0.01, "below 0"),
        (None, None, "One image has no interval"),
    ],
)
def test_verdict_without_a_gate_says_what_the_worst_drop_means(
    low: float | None, high: float | None, meaning: str
) -> None:
    ((status, text),) = lines(with_drop(low, high))
    assert (status, meaning in text) == ("note", True)
    assert text.startswith("No gate was set. The worst INT8 drop is ")


def test_verdict_names_the_worst_of_all_variants_and_targets() -> None:
    first, second = with_drop(0.0, 0.01), with_drop(0.0, 0.02, "rf-lw50")
    first["results"]["int8-qnn"] = with_drop(0.0, 0.05)["results"]["int8"]
    assert "2.50 [0.00, 5.00] points (rf-lw-mbv2 int8-qnn" in lines(first, second)[0][1]
    del first["results"]["int8-qnn"]
    assert "(rf-lw50 int8" in lines(first, second)[0][1]


def test_verdict_of_a_gated_graph_leaves_the_others_their_own_line() -> None:
    result = gated(held=True)
    result["results"]["int8-qnn"] = with_drop(0.0, 0.05)["results"]["int8"]
    passed, other = lines(result)
    assert "(rf-lw-mbv2 int8," in passed[1]
    assert other[1].startswith("The worst INT8 drop without a gate is 2.50 [0.00, 5.00] points")


def test_verdict_of_random_parameters_is_agreement_only() -> None:
    found = lines(validation("rf101", "random"), validation("rf-lw50", "random"))
    ((status, text),) = found
    assert status == Status.NOTE
    assert "have random parameters, and those have no accuracy" in text
    assert "97.80% of the pixels" in text
    assert "drop" not in text


def test_report_of_one_image_has_no_interval() -> None:
    result = validation()
    for figures in result["results"].values():
        for name in ("miou_drop", "miou_ratio"):
            if figures[name] is not None:
                figures[name] |= {"low": None, "high": None}
    assert "| 59.35 | 1.74 | 97.15 | 76.2 |" in render_markdown(build_report([result]))


def test_report_without_an_int8_graph_has_dashes_there() -> None:
    result = validation() | {"layers": None}
    del result["results"]["int8"]
    assert "| 61.10 | – | – | – | 76.2 |" in render_markdown(build_report([result]))
    assert "No INT8 graph: rf-lw-mbv2." in page(result)


@pytest.mark.parametrize(("source", "noted"), [("repository", True), ("random", False)])
def test_report_says_that_scenes_are_drawn(source: str, noted: bool) -> None:
    markdown = render_markdown(build_report([validation(source=source, data="scenes")]))
    assert "50 drawn scenes of val" in markdown
    assert ("Drawn scenes, not photographs" in markdown) is noted
    assert "rawn scenes" not in render_markdown(build_report([validation(source=source)]))


def test_report_says_where_it_comes_from() -> None:
    for text in (page(validation()), render_markdown(build_report([validation()]))):
        for part in ("deploy validate rf-lw-mbv2 --limit 50", "ef" * 6, "cd" * 6, "ab" * 6, "a CPU",
                     "torch 2.13.0", "2026-11-22", "onnxruntime", "minmax"):  # fmt: skip
            assert part in text


def test_names_from_outside_are_escaped() -> None:
    result = validation() | {"command": "deploy validate '<script>alert(1)</script>'"}
    result["layers"]["layers"][0]["node"] = "<b>&"
    html = render_html(build_report([result]), {})
    assert "<script" not in html
    assert "&lt;b&gt;&amp;" in html


def test_worst_classes_are_those_that_int8_costs_most() -> None:
    result = validation()
    torch, int8 = (result["results"][graph]["per_class_iou"] for graph in ("torch", "int8"))
    torch |= {"cat": 0.6, "dog": 0.5, "cow": 0.4}
    int8 |= {"cat": 0.58, "dog": 0.4, "cow": 0.41}
    markdown = render_markdown(build_report([result]))
    worst = "dog 50.0 → 40.0, cat 60.0 → 58.0, background 61.1 → 59.4."
    assert f"Worst classes of rf-lw-mbv2, torch → INT8: {worst}" in markdown
    assert "−10.0" in page(result)


def test_class_plot_draws_the_classes_in_their_order_with_their_change() -> None:
    svg = plot_classes(
        {
            "dog": {"torch": 0.5, "fp16": 0.5, "int8": 0.4},
            "cow": {"torch": 0.4, "fp16": None, "int8": 0.41},
            "cat": {"torch": 0.3},
        },
        "int8",
    )
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert [t for t in texts if t in ("dog", "cow", "cat")] == ["dog", "cow", "cat"]
    assert [t for t in texts if t[0] in "+−"] == ["−10.0", "+1.0"]


def test_plots_take_colours_and_font_from_the_page() -> None:
    layers = validation()["layers"]["layers"]
    svgs = [plot_layers(layers), plot_classes({"cat": {"torch": 0.5, "int8": 0.4}}, "int8")]
    for svg in svgs:
        assert svg.startswith("<svg")
        assert "var(--ink)" in svg
        assert "var(--dim)" in svg
        assert not re.findall(r"#[0-9a-fA-F]{6}\b(?![^<]*url)", re.sub(r'href="#\w+"', "", svg))
        assert "font-family" not in svg
        assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", svg)
    ids = [found for svg in svgs for found in re.findall(r' id="([^"]*)"', svg)]
    assert len(set(ids)) == len(ids)
    assert set(re.findall(r'href="#([^"]*)"', "".join(svgs))) <= set(ids)
    assert plot_layers(layers) == svgs[0]  # the same bytes again


def test_layer_plot_names_the_worst_and_leaves_out_what_has_no_sqnr() -> None:
    layers = validation()["layers"]["layers"]
    assert [(x, layer["node"]) for x, layer in worst_layers(layers)] == [
        (1, "node_add"),
        (0, "stem.0"),
    ]
    text = page(validation())
    assert "node_add (Add, 2 of 3): 19.7 dB stem.0 (Conv, 1 of 3): 41.3 dB" in text
    for layer in layers:
        layer["sqnr_db"] = None
    assert "Layer by layer" not in page(validation() | {"layers": {"layers": layers}})


def test_long_names_are_shortened_in_the_middle() -> None:
    assert _shortened("layer1", 6) == "layer1"
    assert _shortened("mflow_conv_g1_pool", 9) == "mflo…pool"
    assert _shortened("abc", 1) == "a…c"


@pytest.mark.parametrize("result", MIXED, ids=lambda r: r["name"])
def test_schema_takes_made_up_results_and_no_others(result: dict[str, Any]) -> None:
    content = build_report([result])
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(content, SCHEMA)
    for broken in (
        content | {"schema": 2},
        content | {"more": 1},
        {key: value for key, value in content.items() if key != "dataset"},
        content | {"variants": {}},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, SCHEMA)


def test_what_nobody_published_is_a_dash() -> None:
    content = build_report([validation("rf152", "random"), validation("rf-lw-mbv2")])
    assert content["variants"]["rf152"]["published"] == dict.fromkeys(
        ("miou", "vacc_fp16_miou", "vacc_int8_miou")
    )
    jsonschema.validate(content, SCHEMA)
    rows = [line for line in render_markdown(content).splitlines() if "RefineNet-ResNet152" in line]
    assert rows[0].endswith("| – | – | – |")
    assert "RefineNet-ResNet152" in render_html(content, {})
