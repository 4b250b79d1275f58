"""Bad input of every kind: one line that names the file, exit code 1, nothing run or written."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_graphs import FLIPPED, NOT_TO_QUANTIZE, NOT_TO_VALIDATE, UNFIT, UNREADABLE, good
from bad_inputs import (
    BAD_CHECKPOINTS,
    BAD_IMAGES,
    BAD_LISTS,
    BAD_MASKS,
    GOOD_IMAGES,
    GOOD_LISTS,
    SECRET,
    mask,
)
from bad_records import BAD_CALIBRATIONS, BAD_GATES, BAD_VALIDATIONS, BAD_VALUES, WRONG_USAGE
from conftest import run_main
from PIL import Image
from results import validation

import deploy
from deploy import models
from deploy.calibration import read_calibration
from deploy.calibration.scenes import write_scenes
from deploy.calibration.voc import read_image, read_split

VARIANT = models.DEFAULT_VARIANT
Command = Callable[..., tuple[int, str, str]]
CALIBRATE = ("calibrate", "net.onnx", "--images", "6", "--voc-root", "VOCdevkit", "--out", "out")
VALIDATE = ("validate", "net.onnx", "--voc-root", "VOCdevkit", "--out", "out")


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, voc_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with VOCdevkit/VOC2012 and a small graph, ``net.onnx``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "no-torch"))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("VOC_ROOT", raising=False)
    (tmp_path / "net.onnx").write_bytes(good())
    (tmp_path / "secret.bin").write_text(SECRET)
    return tmp_path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Return what runs the console script here: exit code, stdout, stderr (also native code's)."""

    return lambda *arguments: run_main(list(arguments), monkeypatch, capfd)


@pytest.fixture
def refuse(run: Command, workplace: Path) -> Callable[..., str]:
    """Return what asserts that a command ends in one line, having changed nothing."""

    def refuse_(*arguments: str, naming: str) -> str:
        before = snapshot(workplace)
        code, out, err = run(*arguments)
        *steps, line = err.splitlines() or [""]
        assert code == 1, err
        assert out == ""
        assert re.match(r"[A-Z]\w+Error: ", line), err
        assert naming in line
        assert len(line) < 700
        assert all(step.startswith("  ") for step in steps), err  # what was done before
        assert SECRET not in err
        assert snapshot(workplace) == before
        return line

    return refuse_


def snapshot(folder: Path) -> dict[str, str]:
    """Return what lies in a folder: the hash of each file."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "none"
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_image_stops_calibration(name: str, voc_root: Path, refuse: Callable[..., str]) -> None:
    (voc_root / "JPEGImages" / "train_2.jpg").write_bytes(BAD_IMAGES[name]())
    refuse(*CALIBRATE, naming="train_2.jpg")


@pytest.mark.parametrize("name", ["jpeg-cut-0.6", "text", "animated-gif", "png-flipped-0.5"])
def test_bad_image_stops_validation(name: str, voc_root: Path, refuse: Callable[..., str]) -> None:
    (voc_root / "JPEGImages" / "val_2.jpg").write_bytes(BAD_IMAGES[name]())
    refuse(*VALIDATE, naming="val_2.jpg")


@pytest.mark.parametrize("name", GOOD_IMAGES)
def test_odd_image_is_read_as_it_looks(name: str, tmp_path: Path) -> None:
    content, expected, tolerance = GOOD_IMAGES[name]
    (tmp_path / "odd.jpg").write_bytes(content())
    found = read_image(tmp_path / "odd.jpg")
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - expected()).max() <= tolerance


def test_image_of_one_pixel_calibrates(voc_root: Path, run: Command) -> None:
    (voc_root / "JPEGImages" / "train_2.jpg").write_bytes(
        (voc_root / "SegmentationClass" / "train_2.png").read_bytes()
    )
    assert run(*CALIBRATE)[0] == 0


@pytest.mark.parametrize("name", BAD_MASKS)
def test_bad_mask_stops_validation(name: str, voc_root: Path, refuse: Callable[..., str]) -> None:
    (voc_root / "SegmentationClass" / "val_0.png").write_bytes(BAD_MASKS[name]())
    refuse(*VALIDATE, naming="val_0.png")


@pytest.mark.parametrize("kind", ["missing", "directory", "dangling-link"])
@pytest.mark.parametrize("file", ["JPEGImages/val_1.jpg", "SegmentationClass/val_1.png"])
def test_what_is_no_file_stops_validation(
    kind: str, file: str, voc_root: Path, refuse: Callable[..., str]
) -> None:
    path = voc_root / file
    path.unlink()
    if kind == "directory":
        path.mkdir()
    elif kind == "dangling-link":
        path.symlink_to("nowhere")
    refuse(*VALIDATE, naming=path.name)


@pytest.mark.parametrize("name", BAD_LISTS)
def test_bad_list_is_refused(name: str, voc_root: Path, refuse: Callable[..., str]) -> None:
    (voc_root / "ImageSets/Segmentation/train.txt").write_bytes(BAD_LISTS[name])
    refuse(*CALIBRATE[:2], *CALIBRATE[4:], "--images", "1", naming="train.txt")


@pytest.mark.parametrize("name", GOOD_LISTS)
def test_odd_list_is_read(name: str, voc_root: Path) -> None:
    (voc_root / "ImageSets/Segmentation/train.txt").write_bytes(GOOD_LISTS[name])
    assert [s.name for s in read_split(voc_root, "train")] == ["train_0", "train_1"]


def test_names_with_spaces_are_names(voc_root: Path, run: Command) -> None:
    for file in ("JPEGImages/train_0.jpg", "SegmentationClass/train_0.png"):
        path = voc_root / file
        path.rename(path.with_stem("a photo"))
    (voc_root / "ImageSets/Segmentation/train.txt").write_text("a photo\ntrain_1\n")
    code, out, err = run(*CALIBRATE[:2], "--images", "2", *CALIBRATE[4:])
    assert (code, "2 images" in out) == (0, True), err


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """Return the parameters of the default variant."""
    return {k: v.clone() for k, v in models.build_with_weights(VARIANT)[0].state_dict().items()}


@pytest.mark.parametrize("name", BAD_CHECKPOINTS)
def test_bad_checkpoint_is_refused_and_nothing_in_it_runs(
    name: str, state: dict[str, torch.Tensor], tmp_path: Path, refuse: Callable[..., str]
) -> None:
    BAD_CHECKPOINTS[name](state, tmp_path / name)
    arguments = ("export", VARIANT, "--input-size", "32", "--weights", name, "--out", "out")
    refuse(*arguments, naming=name)


QUANTIZE = ("quantize", "bad.onnx", "--images", "2", "--voc-root", "VOCdevkit", "--out", "out")
GRAPH_COMMANDS = {
    "quantize": QUANTIZE,
    "calibrate": ("calibrate", *QUANTIZE[1:]),
    "validate": ("validate", "bad.onnx", *VALIDATE[2:]),
    "simplify": ("simplify", "bad.onnx"),
    "lint": ("lint", "bad.onnx"),
}


@pytest.mark.parametrize("command", GRAPH_COMMANDS)
@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable_graph_is_refused(
    name: str, command: str, tmp_path: Path, refuse: Callable[..., str]
) -> None:
    (tmp_path / "bad.onnx").write_bytes(UNREADABLE[name]())
    refuse(*GRAPH_COMMANDS[command], naming="bad.onnx")


@pytest.mark.parametrize("command", ["quantize", "validate"])
@pytest.mark.parametrize("name", UNFIT)
def test_graph_that_is_no_network_is_refused(
    name: str, command: str, tmp_path: Path, refuse: Callable[..., str]
) -> None:
    (tmp_path / "bad.onnx").write_bytes(UNFIT[name]())
    refuse(*GRAPH_COMMANDS[command], naming="bad.onnx")


@pytest.mark.parametrize("name", NOT_TO_QUANTIZE)
def test_graph_that_cannot_be_quantized_is_refused(
    name: str, tmp_path: Path, refuse: Callable[..., str]
) -> None:
    (tmp_path / "bad.onnx").write_bytes(NOT_TO_QUANTIZE[name]())
    refuse(*QUANTIZE, naming="bad.onnx")


@pytest.mark.parametrize("name", NOT_TO_VALIDATE)
def test_graph_that_cannot_be_scored_is_refused(
    name: str, tmp_path: Path, refuse: Callable[..., str]
) -> None:
    (tmp_path / "bad.onnx").write_bytes(NOT_TO_VALIDATE[name]())
    refuse(*GRAPH_COMMANDS["validate"], naming="bad.onnx")


@pytest.mark.parametrize("name", FLIPPED)
def test_flipped_bit_is_refused_or_changes_numbers_only(
    name: str, tmp_path: Path, run: Command
) -> None:
    # ONNX has no checksums: a weight that is another number cannot be told from a trained one
    (tmp_path / "bad.onnx").write_bytes(FLIPPED[name]())
    code, out, err = run(*GRAPH_COMMANDS["calibrate"])
    lines = [line for line in err.splitlines() if not line.startswith("  ")]
    assert (code, bool(out), len(lines)) in [(0, True, 0), (1, False, 1)], err
    if code:
        assert "bad.onnx" in lines[0]


@pytest.mark.parametrize("kind", ["missing", "directory", "dangling-link"])
@pytest.mark.parametrize("command", GRAPH_COMMANDS)
def test_graph_that_is_no_file_is_refused(
    kind: str, command: str, tmp_path: Path, refuse: Callable[..., str]
) -> None:
    path = tmp_path / "bad.onnx"
    if kind == "directory":
        path.mkdir()
    elif kind == "dangling-link":
        path.symlink_to("nowhere")
    refuse(*GRAPH_COMMANDS[command], naming="bad.onnx")


WITH_CALIBRATION = (*QUANTIZE[:1], "net.onnx", "--out", "out", "--calibration")


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the content of a good calibration.json of ``net.onnx``."""
    folder = tmp_path_factory.mktemp("calibrated")
    root = write_scenes(folder / "data", train=2, val=1, seed=0)
    (folder / "net.onnx").write_bytes(good())
    deploy.calibrate(str(folder / "net.onnx"), images=2, voc_root=root, out=folder)
    return (folder / "net" / "calibration.json").read_text()


def spoil(change: Callable[[str], str | bytes], text: str, path: Path) -> None:
    content = change(text)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def test_good_calibration_is_taken(calibration: str, tmp_path: Path, run: Command) -> None:
    (tmp_path / "given.json").write_text(calibration)
    code, _, err = run(*WITH_CALIBRATION, "given.json", "--recipe", "plain")
    assert code == 0, err


@pytest.mark.parametrize("name", BAD_CALIBRATIONS)
def test_bad_calibration_is_refused(
    name: str, calibration: str, tmp_path: Path, refuse: Callable[..., str]
) -> None:
    spoil(BAD_CALIBRATIONS[name], calibration, tmp_path / "given.json")
    refuse(*WITH_CALIBRATION, "given.json", "--recipe", "plain", naming="given.json")


@pytest.mark.parametrize("name", BAD_CALIBRATIONS)
def test_bad_calibration_that_lies_there_is_made_anew(
    name: str, calibration: str, tmp_path: Path, run: Command
) -> None:
    path = tmp_path / "out/net/calibration.json"
    spoil(BAD_CALIBRATIONS[name], calibration, path)
    before = path.read_bytes()
    code, out, err = run("calibrate", "net.onnx", *QUANTIZE[2:])
    assert (code, "reused" in out) == (0, False), err
    assert path.read_bytes() != before
    assert [image.name for image in read_calibration(path).key.images] == ["train_0", "train_3"]


@pytest.mark.parametrize("name", BAD_VALIDATIONS)
def test_bad_validation_is_not_reported(
    name: str, tmp_path: Path, refuse: Callable[..., str]
) -> None:
    path = tmp_path / "out" / VARIANT / "validation.json"
    spoil(BAD_VALIDATIONS[name], json.dumps(validation(VARIANT)), path)
    refuse("report", VARIANT, "--out", "out", naming=f"{VARIANT}/validation.json")


@pytest.mark.parametrize("name", BAD_GATES)
def test_bad_gate_stops_validation(
    name: str, tmp_path: Path, voc_root: Path, refuse: Callable[..., str]
) -> None:
    gate = json.dumps(
        {
            "schema": 1,
            "gate": {"min_ratio": 0.99, "max_drop": None},
            "target": "ort",
            "tuning_images": 2,
            "steps": [],
            "evaluated_images": 0,
            "confirmed": None,
            "held": False,
        }
    )
    spoil(BAD_GATES[name], gate, tmp_path / "out/net/gate.json")
    refuse(*VALIDATE, naming="gate.json")


@pytest.mark.parametrize(("arguments", "named"), BAD_VALUES, ids=lambda v: " ".join(v)[:60])
def test_bad_value_is_refused(arguments: list[str], named: str, refuse: Callable[..., str]) -> None:
    refuse(*arguments, naming=named)


@pytest.mark.parametrize("arguments", WRONG_USAGE, ids=lambda v: " ".join(v)[:60])
def test_wrong_usage_is_exit_2_with_the_usage(
    arguments: list[str], workplace: Path, run: Command
) -> None:
    before = snapshot(workplace)
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "Usage:" in err
    assert snapshot(workplace) == before


def test_masks_that_label_nothing_are_told_of(voc_root: Path, run: Command) -> None:
    (voc_root / "SegmentationClass/val_1.png").write_bytes(mask(np.full((48, 36), 255, np.uint8)))
    code, _, err = run(*VALIDATE)
    assert (code, "val_1.png labels no pixel" in err) == (0, True), err


def test_no_label_in_any_mask_is_an_error(voc_root: Path, run: Command) -> None:
    for path in (voc_root / "SegmentationClass").glob("val_*.png"):
        with Image.open(path) as picture:
            size = picture.size
        path.write_bytes(mask(np.full(size[::-1], 255, np.uint8)))
    code, out, err = run(*VALIDATE)
    assert (code, out) == (1, "")
    assert "mIoU is undefined" in err.splitlines()[-1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_are_converted_and_said(
    dtype: torch.dtype, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    stored = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
    torch.save(stored, tmp_path / "other.pth")
    module, source = models.build_with_weights(VARIANT, tmp_path / "other.pth")
    assert str(source) == f"file other.pth (stored as {str(dtype).removeprefix('torch.')})"
    found = module.state_dict()
    assert all(torch.equal(found[k], v.to(found[k].dtype)) for k, v in stored.items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "content", "arguments"),
    [
        ("bad.onnx", UNREADABLE["outside-parent"], GRAPH_COMMANDS["lint"]),
        ("bad.onnx", UNFIT["fails-when-run"], GRAPH_COMMANDS["validate"]),
        ("VOCdevkit/VOC2012/JPEGImages/val_0.jpg", BAD_IMAGES["postscript"], VALIDATE),
        ("VOCdevkit/VOC2012/JPEGImages/val_0.jpg", BAD_IMAGES["jpeg-claims-10000x10000"], VALIDATE),
        ("out/net/gate.json", lambda: b"[" * 100_000, VALIDATE),
    ],
)
def test_process_of_its_own_prints_one_line(
    file: str, content: Callable[[], bytes], arguments: tuple[str, ...], workplace: Path
) -> None:
    (workplace / file).parent.mkdir(parents=True, exist_ok=True)
    (workplace / file).write_bytes(content())
    before = snapshot(workplace)
    script = [sys.executable, "-m", "deploy", *arguments]
    folder = Path(deploy.__file__).parent.parent
    done = subprocess.run(
        script, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(folder)}
    )
    lines = [line for line in done.stderr.splitlines() if not line.startswith("  ")]
    assert (done.returncode, done.stdout, len(lines)) == (1, "", 1), done.stderr
    assert Path(file).name in lines[0]
    assert snapshot(workplace) == before
