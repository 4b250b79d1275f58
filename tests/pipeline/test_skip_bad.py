"""--skip-bad: bad images and masks are left out, counted and named, never silently."""

import json
from pathlib import Path

import onnx
import pytest
from bad_graphs import good
from bad_inputs import BAD_IMAGES, BAD_MASKS
from conftest import run_main

from deploy.calibration import read_calibration
from deploy.graph.metadata import read_metadata

CALIBRATE = ["calibrate", "net.onnx", "--images", "6", "--voc-root", "VOCdevkit", "--out", "out"]
VALIDATE = ["validate", "net.onnx", "--voc-root", "VOCdevkit", "--out", "out", "--json"]


@pytest.fixture(autouse=True)
def spoiled(tmp_path: Path, voc_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work beside a data set of which two images to calibrate and three to evaluate are bad."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VOC_ROOT", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "net.onnx").write_bytes(good())
    (voc_root / "JPEGImages/train_1.jpg").write_bytes(BAD_IMAGES["jpeg-cut-0.6"]())
    (voc_root / "JPEGImages/train_4.jpg").unlink()
    (voc_root / "SegmentationClass/val_0.png").write_bytes(BAD_MASKS["label-22"]())
    (voc_root / "SegmentationClass/val_1.png").write_bytes(BAD_MASKS["another-size"]())
    (voc_root / "JPEGImages/val_3.jpg").write_bytes(b"")
    return voc_root


def test_without_it_the_first_bad_one_ends_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run_main(CALIBRATE, monkeypatch, capfd)
    assert (code, "train_4.jpg does not exist" in err) == (1, True)
    code, _, err = run_main(VALIDATE, monkeypatch, capfd)
    assert (code, "val_0.png" in err) == (1, True)


def test_calibration_names_what_it_left_out_and_is_of_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run_main([*CALIBRATE, "--skip-bad"], monkeypatch, capfd)
    assert code == 0, err
    assert "4 images" in out
    assert "skipped 2 of 6 images of split 'train'" in err
    assert "train_1: " in err
    assert "train_4: " in err
    path = tmp_path / "out/net/calibration.json"
    names = [image.name for image in read_calibration(path).key.images]
    assert names == ["train_0", "train_2", "train_3", "train_5"]
    before = path.read_bytes()
    path.unlink()
    assert run_main([*CALIBRATE, "--skip-bad"], monkeypatch, capfd)[0] == 0
    assert path.read_bytes() == before


def test_quantized_graph_says_what_was_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["quantize", *CALIBRATE[1:], "--int8", "--recipe", "plain", "--skip-bad"]
    code, _, err = run_main(arguments, monkeypatch, capfd)
    assert code == 0, err
    metadata = read_metadata(onnx.load(tmp_path / "out/net/int8.onnx"))
    assert json.loads(metadata["calibration_skipped"]) == ["train_1", "train_4"]
    assert len(json.loads(metadata["calibration_images"])) == 4


def test_validation_counts_and_names_what_it_left_out(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run_main([*VALIDATE, "--skip-bad"], monkeypatch, capfd)
    assert code == 0, err
    (result,) = json.loads(out)
    assert result["dataset"]["images"] == 1
    assert result["dataset"]["skipped"] == {"count": 3, "names": ["val_0", "val_1", "val_3"]}
    assert "skipped 3 of 4 images" in err
    assert all(f"val_{i}: " in err for i in (0, 1, 3))


def test_all_bad_is_an_error(
    spoiled: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (spoiled / "SegmentationClass/val_2.png").write_bytes(BAD_MASKS["16-bit"]())
    code, out, err = run_main([*VALIDATE, "--skip-bad"], monkeypatch, capfd)
    assert (code, out) == (1, "")
    assert "all 4 samples are bad" in err
    assert err.count("\n") == 1


def test_nothing_bad_is_as_without_it(
    spoiled: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (spoiled / "ImageSets/Segmentation/val.txt").write_text("val_2\n")
    results = [
        json.loads(run_main([*VALIDATE, *flag], monkeypatch, capfd)[1])
        for flag in ([], ["--skip-bad"])
    ]
    assert results[0][0]["dataset"] == results[1][0]["dataset"]
    assert "skipped" not in results[0][0]["dataset"]
