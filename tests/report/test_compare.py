"""deploy report --compare: what changed, what is a regression, and what does not compare."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from results import SCHEMA, cells, validation

from deploy.errors import ReportError
from deploy.report.build import build_report
from deploy.report.compare import compare_reports, read_earlier
from deploy.report.write import render_html, render_markdown

Report = dict[str, Any]
MIXED = [validation("rf101", "random"), validation("rf-lw-mbv2")]


def compared(
    change: Callable[[Report], object], tolerance: float = 0.5, results: Any = MIXED
) -> Report:
    """Return the comparison of a report with one like it but for a change."""
    earlier = build_report(copy.deepcopy(results))
    later = copy.deepcopy(earlier)
    change(later)
    return compare_reports(earlier, later, file="old.json", tolerance=tolerance)


def figures(report: Report, variant: str = "rf-lw-mbv2", graph: str = "int8") -> Report:
    found: Report = report["variants"][variant]["results"][graph]
    return found


def test_equal_reports_have_no_regression_and_nothing_to_note() -> None:
    comparison = compared(lambda later: None, tolerance=0)
    assert comparison["regressions"] == []
    assert comparison["notes"] == []
    change = comparison["variants"]["rf-lw-mbv2"]["graphs"]["int8"]["miou"]
    assert change == {"old": 0.5935, "new": 0.5935}
    assert comparison["variants"]["rf101"]["graphs"]["int8"]["miou"] == {"old": None, "new": None}


@pytest.mark.parametrize(("miou", "found"), [(0.5884, 1), (0.5885, 0), (0.5935, 0), (0.7, 0)])
def test_a_fall_beyond_the_tolerance_is_a_regression(miou: float, found: int) -> None:
    comparison = compared(lambda later: figures(later).update(miou=miou))
    assert len(comparison["regressions"]) == found
    if found:
        assert comparison["regressions"] == [
            "rf-lw-mbv2 int8: mIoU fell by 0.51 points, 59.35 to 58.84"
        ]


def test_random_parameters_regress_in_agreement() -> None:
    def worse(later: Report) -> None:
        figures(later, "rf101").update(agreement=0.97)
        figures(later).update(agreement=0.90)  # trained: mIoU counts

    assert compared(worse)["regressions"] == [
        "rf101 int8: agreement fell by 0.80 points, 97.80 to 97.00"
    ]
    assert compared(worse, tolerance=0.8)["regressions"] == []


def test_a_graph_that_has_gone_is_a_regression_and_a_new_one_is_said() -> None:
    def change(later: Report) -> None:
        results = later["variants"]["rf-lw-mbv2"]["results"]
        results["int8-qnn"] = results.pop("int8")

    comparison = compared(change)
    assert comparison["regressions"] == ["rf-lw-mbv2 int8 is no longer there"]
    assert comparison["variants"]["rf-lw-mbv2"]["added"] == ["int8-qnn"]


def test_accuracy_that_has_gone_is_a_regression() -> None:
    def change(later: Report) -> None:
        later["variants"]["rf-lw-mbv2"]["weights"] = {"source": "random", "sha256": "00" * 32}
        for graph in ("torch", "fp32", "fp16", "int8"):
            figures(later, graph=graph).update(miou=None, miou_drop=None)

    comparison = compared(change)
    assert "rf-lw-mbv2 int8 has no mIoU any more" in comparison["regressions"]
    assert comparison["notes"] == [
        f"rf-lw-mbv2: other parameters (repository {'ef' * 6}, now random {'00' * 6}): the change "
        "is theirs as well"
    ]


def test_variants_that_only_one_has_are_said_and_no_regression() -> None:
    earlier, later = build_report([MIXED[0]]), build_report(MIXED)
    comparison = compare_reports(earlier, later, file="old.json")
    assert (comparison["added"], comparison["removed"]) == (["rf-lw-mbv2"], [])
    comparison = compare_reports(later, earlier, file="old.json")
    assert (comparison["added"], comparison["removed"]) == ([], ["rf-lw-mbv2"])
    assert comparison["regressions"] == []
    with pytest.raises(ReportError, match="has no variant of this report"):
        compare_reports(build_report([MIXED[1]]), earlier, file="old.json")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("images_sha256", "00" * 32, "images sha256"),
        ("protocol", "squash", "protocol crop, here squash"),
        ("images", 49, "images 50, here 49"),
        ("input_size", [64, 64], "input size"),
    ],
)
def test_other_data_are_refused(key: str, value: object, message: str) -> None:
    with pytest.raises(ReportError, match=f"measured on other data .{message}"):
        compared(lambda later: later["dataset"].update({key: value}))


def test_other_hardware_versions_and_runtime_are_noted() -> None:
    def change(later: Report) -> None:
        later["environment"]["cpu"] = "another CPU"
        later["environment"]["versions"] = {"torch": "3.0", "numpy": "2.0"}
        later["variants"]["rf101"]["runtime"] = "openvino"

    assert compared(change)["notes"] == [
        "rf101: ran in onnxruntime, now in openvino",
        "other hardware (a CPU, 2 threads; now another CPU, 2): speeds do not compare",
        "numpy not installed, now 2.0",
        "torch 2.13.0, now 3.0",
    ]


@pytest.mark.parametrize("tolerance", [-0.1, float("nan")])
def test_a_tolerance_that_is_none_is_refused(tolerance: float) -> None:
    with pytest.raises(ReportError, match=r"--tolerance .* at least 0"):
        compared(lambda later: None, tolerance=tolerance)


def test_comparison_is_in_the_report() -> None:
    content = build_report(MIXED)
    earlier = copy.deepcopy(content)
    figures(earlier).update(miou=0.6035, latency_ms=50.0, size_bytes=26_200_000)
    content["comparison"] = compare_reports(earlier, content, file="old.json")
    jsonschema.validate(content, SCHEMA)
    row = "60.35 → 59.35 (−1.00) | 1.74 | 97.80 | 25.8 | 2.00 → 1.00 (−1.00)"
    markdown = render_markdown(content)
    assert f"| rf-lw-mbv2 | int8 | {row} | 26.20 → 13.10 (−13.10) |" in markdown
    text = "Regression: rf-lw-mbv2 int8: mIoU fell by 1.00 points, 60.35 to 59.35."
    assert f"- **FAIL** {text}" in markdown
    page = cells(render_html(content, {}))
    assert "int8 60.35 → 59.35 (−1.00) 1.74 97.80" in page
    assert page.index(text) < page.index("mIoU beside")
    content["comparison"] = compare_reports(content, content, file="old.json")
    assert "No regression beyond 0.5 points since old.json of 2026-11-22." in cells(
        render_html(content, {})
    )


def test_earlier_reports_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    for content in (build_report(MIXED), build_report(MIXED) | {"schema": 2}):
        path.write_text(json.dumps(content))
        assert read_earlier(path) == content


def broken(change: Callable[[Report], object]) -> str:
    content = copy.deepcopy(build_report(MIXED))
    change(content)
    return json.dumps(content)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no report at"),
        ("", "cannot be read as JSON"),
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("[]", "is no report"),
        ('{"name": 1}', "is no report"),
        ('{"schema": 1}', "has schema 1, but this version compares with 2, 3, 4"),
        ('{"schema": 3}', "is no whole report .KeyError: 'dataset'"),
        (broken(lambda c: c.update(variants=[])), "is no whole report"),
        (broken(lambda c: c["variants"]["rf101"].pop("weights")), "KeyError: 'weights'"),
        (broken(lambda c: figures(c).update(miou="high")), "could not convert"),
        (broken(lambda c: figures(c).pop("agreement")), "KeyError: 'agreement'"),
        (broken(lambda c: c["environment"].update(versions=None)), "is no whole report"),
    ],
)
def test_a_file_that_is_no_report_is_refused_in_one_line(
    tmp_path: Path, text: str | None, message: str
) -> None:
    path = tmp_path / "old.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ReportError, match=message) as error:
        read_earlier(path)
    assert "old.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_or_bytes_in_place_of_a_report_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="cannot be read"):
        read_earlier(tmp_path)
    (tmp_path / "old.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ReportError, match="cannot be read"):
        read_earlier(tmp_path / "old.json")
