import json
import re
from pathlib import Path

import pytest
from results import validation

from deploy.errors import ReportError
from deploy.report import build_report, render_markdown, write_report

MIXED = [validation("rf101", "random"), validation("rf-lw-mbv2")]
RANDOM_ROW = "| RefineNet-ResNet101 | random | 8.27 | 3.28 | – | – | – | – | – | – | 80.5 |"
TRAINED_ROW = (
    "| RefineNet-LW-MobileNetv2 | repository | 8.27 | 3.28 | 61.09 | 61.09 | 61.10 | 59.35 "
    "| 1.74 [-0.31, 3.45] | 97.15 [94.25, 100.51] | 76.2 |"
)


def cells(html: str) -> str:
    """Return a page's text, its tags as spaces."""
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def test_report_without_results_is_refused() -> None:
    with pytest.raises(ReportError, match="no validation results yet"):
        build_report([])


def test_report_shows_no_accuracy_of_random_parameters(tmp_path: Path) -> None:
    write_report(build_report(MIXED), tmp_path)
    markdown = (tmp_path / "report.md").read_text()
    assert RANDOM_ROW in markdown
    assert "| rf101 | random | int8 | 97.80 | 25.8 | 0.9984 | – | – | 100.0 | 13.1 |" in markdown
    assert "**random**: seeded random parameters, which have no accuracy." in markdown
    assert "IoU by class, %: rf101" not in markdown
    page = cells((tmp_path / "report.html").read_text())
    assert "RefineNet-ResNet101 random 8.27 3.28 – – – – – – 80.5" in page
    assert "random int8 97.80 25.8 0.9984 – – 100.0" in page
    variant = json.loads((tmp_path / "report.json").read_text())["variants"]["rf101"]
    assert variant["weights"]["source"] == "random"
    assert variant["results"]["int8"]["miou"] is None
    assert variant["results"]["int8"]["cosine"] == 0.99837


def test_report_shows_drop_and_ratio_with_their_intervals(tmp_path: Path) -> None:
    write_report(build_report(MIXED), tmp_path)
    markdown = (tmp_path / "report.md").read_text()
    assert TRAINED_ROW in markdown
    assert "| 0.9984 | 1.74 [-0.31, 3.45] | 90.59 |" in markdown
    assert "95% interval over 1,000 resamples" in markdown
    page = cells((tmp_path / "report.html").read_text())
    assert "59.35 1.74 [-0.31, 3.45] 97.15 [94.25, 100.51] 76.2" in page
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["schema"] == 2
    drop = content["variants"]["rf-lw-mbv2"]["results"]["int8"]["miou_drop"]
    assert drop == pytest.approx({"value": 0.0174, "low": -0.0031, "high": 0.0345})


def test_report_shows_what_the_gate_tried(tmp_path: Path) -> None:
    cost = {"value": 0.0174, "low": -0.0031, "high": 0.0345}
    step = {
        "recipe": "fast", "float_layers": 0, "int8_share_of_macs": 1.0, "miou": 0.6, "held": False,
        "miou_drop": cost, "miou_ratio": {"value": 0.97, "low": 0.95, "high": 1.01},
        "agreement": 0.99, "sqnr_db": 33.0, "latency_ms": 60.0,
    }  # fmt: skip
    passing = step | {"float_layers": 2, "int8_share_of_macs": 0.912, "held": True}
    gated = validation() | {
        "gate": {
            "gate": {"min_ratio": 0.99, "max_drop": None}, "target": "ort", "tuning_images": 40,
            "steps": [step, passing], "float_layers": ["a", "b"], "evaluated_images": 216,
            "confirmed": passing, "held": True,
        }
    }  # fmt: skip
    write_report(build_report([gated]), tmp_path)
    markdown = (tmp_path / "report.md").read_text()
    assert "ratio at least 0.99: **holds**" in markdown
    assert "Tried on 40 images" in markdown
    assert "Confirmed on 216 images of the evaluation split: drop 1.74 [-0.31, 3.45]" in markdown
    row = "| 99.00 | 33.0 | 60.0 | yes |"
    assert f"| fast | 2 | 91.2 | 1.74 [-0.31, 3.45] | 97.00 [95.00, 101.00] {row}" in markdown
    page = cells((tmp_path / "report.html").read_text())
    assert "fast 2 91.2 1.74 [-0.31, 3.45]" in page


def test_report_of_one_image_has_no_interval() -> None:
    result = validation()
    for figures in result["results"].values():
        for name in ("miou_drop", "miou_ratio"):
            if figures[name] is not None:
                figures[name] |= {"low": None, "high": None}
    assert "| 59.35 | 1.74 | 97.15 | 76.2 |" in render_markdown(build_report([result]))


def test_report_without_an_int8_graph_has_dashes_there() -> None:
    result = validation()
    del result["results"]["int8"]
    assert "| 61.10 | – | – | – | 76.2 |" in render_markdown(build_report([result]))


@pytest.mark.parametrize(("source", "noted"), [("repository", True), ("random", False)])
def test_report_says_that_scenes_are_drawn(source: str, noted: bool) -> None:
    markdown = render_markdown(build_report([validation(source=source, data="scenes")]))
    assert "50 drawn scenes of val" in markdown
    assert ("Drawn scenes, not photographs" in markdown) is noted
    assert "rawn scenes" not in render_markdown(build_report([validation(source=source)]))
