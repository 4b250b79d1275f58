"""Variants with random parameters may see fewer images than those with trained ones."""

from typing import Any

import jsonschema
import pytest
from results import SCHEMA, cells, validation

from deploy.errors import ReportError
from deploy.report.build import build_report
from deploy.report.compare import TOLERANCE, compare_reports
from deploy.report.write import render_html, render_markdown

NOTE = (
    "only fidelity to torch, here on 4 images. Variants measured with trained parameters: "
    "docs/accuracy.md."
)


def with_few(variant: str, source: str, images: int = 4, **changes: Any) -> dict[str, Any]:
    result = validation(variant, source)
    result["dataset"] |= {"images": images, "images_sha256": "aa" * 32, **changes}
    return result


def test_report_is_of_the_trained_ones_images_and_says_how_many_random_ones_saw() -> None:
    report = build_report([with_few("rf101", "random"), validation("rf-lw-mbv2")])
    jsonschema.validate(report, SCHEMA)
    assert report["dataset"]["images"] == 50
    assert [v["images"] for v in report["variants"].values()] == [4, 50]
    assert NOTE in render_markdown(report)
    assert NOTE in cells(render_html(report, {}))


@pytest.mark.parametrize(
    "other",
    [
        with_few("rf101", "file"),
        with_few("rf101", "random", protocol="squash"),
        with_few("rf101", "random", name="other"),
    ],
    ids=["trained", "protocol", "data"],
)
def test_anything_else_of_other_images_is_refused(other: dict[str, Any]) -> None:
    with pytest.raises(ReportError, match="different images or protocols"):
        build_report([validation("rf-lw-mbv2"), other])


def test_figures_of_other_images_do_not_compare() -> None:
    def report(images: int, agreement: float) -> dict[str, Any]:
        random = with_few("rf101", "random", images)
        random["results"]["int8"]["agreement"] = agreement
        return build_report([random, validation("rf-lw-mbv2")])

    def regressions(old: dict[str, Any], new: dict[str, Any]) -> tuple[list[str], str]:
        found = compare_reports(old, new, file="old.json", tolerance=TOLERANCE)
        return found["regressions"], " ".join(found["notes"])

    fell, _ = regressions(report(4, 0.95), report(4, 0.90))
    assert ["rf101 int8: agreement fell" in text for text in fell] == [True]
    fell, notes = regressions(report(50, 0.95), report(4, 0.90))
    assert fell == []
    assert "rf101: 4 images, 50 before" in notes
