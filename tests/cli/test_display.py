import json
from pathlib import Path

import pytest
from results import validation

from deploy.cli import display_measured
from deploy.report.build import build_report

MIXED = [
    *(validation(name, "random") for name in ("rf101", "rf-lw50", "rf-lw101", "rf-lw152")),
    validation("rf-lw-mbv2"),
]


def test_reported_fits_100_columns_and_shows_no_accuracy_of_random_parameters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    display_measured.reported(build_report(MIXED), Path("out"), as_json=False)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 100
    rows = [line.split() for line in out.splitlines()]
    assert ["rf101", "random", "8.27", "3.28", "80.5", *"––––––"] in rows
    assert ["rf101", "int8", "–", "–", "97.80", "25.8", "0.9984"] in rows
    assert ["rf101", "fp16", "–", "–", "99.93", "55.6", "1.0000"] in rows
    accuracy = ["61.09", "61.09", "61.10", "59.35", "1.74", "97.15"]
    assert ["rf-lw-mbv2", "repository", "8.27", "3.28", "76.2", *accuracy] in rows
    intervals = ["1.74", "[-0.31,", "3.45]", "97.15", "[94.25,", "100.51]"]
    assert ["rf-lw-mbv2", "int8", *intervals, "97.80", "25.8", "0.9984"] in rows
    assert "random: seeded random parameters, which have no accuracy" in out


def test_validated_fits_100_columns_and_shows_the_interval_of_the_drop(
    capsys: pytest.CaptureFixture[str],
) -> None:
    display_measured.validated(MIXED, as_json=False)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 100
    rows = [line.split() for line in out.splitlines()]
    fidelity = ["97.80", "25.8", "0.9984", "100.0", "13.1"]
    assert ["rf101", "int8", "random", "–", "–", *fidelity] in rows
    drop = ["1.74", "[-0.31,", "3.45]"]
    assert ["rf-lw-mbv2", "int8", "repository", "59.35", *drop, *fidelity] in rows


def test_validated_trained_parameters_alone_need_no_note(
    capsys: pytest.CaptureFixture[str],
) -> None:
    display_measured.validated([validation()], as_json=False)
    out = capsys.readouterr().out
    assert out.startswith("50 images of VOC2012 val, protocol crop, graphs in onnxruntime\n")
    assert "random" not in out
    assert "drawn" not in out


@pytest.mark.parametrize(("source", "noted"), [("repository", True), ("random", False)])
def test_tables_say_that_scenes_are_drawn(
    source: str, noted: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    result = validation(source=source, data="scenes")
    for show in (
        lambda: display_measured.validated([result], as_json=False),
        lambda: display_measured.reported(build_report([result]), Path("out"), as_json=False),
    ):
        show()
        out = capsys.readouterr().out
        assert "50 drawn scenes of val" in out
        assert max(map(len, out.splitlines())) <= 100
        assert ("Drawn scenes, not photographs" in out) is noted


def test_json_is_what_the_files_hold(capsys: pytest.CaptureFixture[str]) -> None:
    display_measured.validated(MIXED, as_json=True)
    assert json.loads(capsys.readouterr().out) == MIXED
    content = build_report(MIXED)
    display_measured.reported(content, Path("out"), as_json=True)
    assert json.loads(capsys.readouterr().out) == content
