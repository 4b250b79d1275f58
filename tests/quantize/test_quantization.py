"""Calibrating in parts, and what cannot be calibrated: one clear line, and nothing written."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import make_model, refine_model
from onnx import helper
from PIL import Image

import deploy
from deploy.calibration import CalibrationError, DataError, Fit, read_calibration
from deploy.cli import main
from deploy.errors import DeployError, GraphError
from deploy.quantize.recipe import RecipeName

WEIGHT = np.ones((3, 3, 1, 1), dtype=np.float32)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a small graph that can be quantized."""
    path = tmp_path / "mine.onnx"
    onnx.save(refine_model(), path)
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def calibrate(model: Path, voc_root: Path, out: Path, **options: object) -> Path:
    options = {"images": 5, **options}
    return deploy.calibrate(str(model), voc_root=voc_root, out=out, **options).path  # type: ignore[arg-type]


def test_calibrate_writes_the_statistics_that_quantize_takes(
    model: Path, voc_root: Path, out: Path
) -> None:
    written = deploy.calibrate(str(model), images=5, voc_root=voc_root, out=out)
    assert written.path == out / "mine" / "calibration.json"
    assert (written.images, written.tensors, written.reused) == (5, 7, False)
    found = {p.name for p in written.path.parent.iterdir()}
    assert found == {"calibration.json", "source.txt"}
    (int8,) = deploy.quantize([str(model)], fp16=False, images=5, voc_root=voc_root, out=out)
    assert int8.calibration_reused


@pytest.mark.parametrize("parts", [1, 2, 5])
def test_merged_parts_are_byte_identical_to_one_run(
    parts: int, model: Path, voc_root: Path, out: Path
) -> None:
    whole = calibrate(model, voc_root, out).read_bytes()
    paths = [calibrate(model, voc_root, out, part=(i + 1, parts)) for i in reversed(range(parts))]
    assert [p.name for p in reversed(paths)] == [
        f"calibration-{i + 1}-of-{parts}.json" for i in range(parts)
    ]
    (out / "mine" / "calibration.json").unlink()
    merged = deploy.merge_calibration(str(model), paths, out=out)
    assert merged.path.read_bytes() == whole
    assert merged.images == 5
    (int8,) = deploy.quantize([str(model)], fp16=False, images=5, voc_root=voc_root, out=out)
    assert int8.calibration_reused


def test_quantize_with_a_calibration_needs_no_images(
    model: Path, voc_root: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VOC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    path = calibrate(model, voc_root, out, part=(1, 2)).rename(out / "elsewhere.json")
    options = {"fp16": False, "recipe": RecipeName.PLAIN}  # the others look at images themselves
    (given,) = deploy.quantize([str(model)], calibration=path, out=out, **options)
    assert given.calibration_reused
    expected = json.loads(
        {p.key: p.value for p in onnx.load(given.path).metadata_props}["calibration_images"]
    )
    assert expected == [image.sha256 for image in read_calibration(path).key.images]
    assert not (out / "mine" / "calibration.json").exists()


def test_quantize_with_a_calibration_of_another_graph_is_refused(
    model: Path, voc_root: Path, out: Path, tmp_path: Path
) -> None:
    path = calibrate(model, voc_root, out)
    other = tmp_path / "other.onnx"
    onnx.save(refine_model(seed=1), other)
    for act in (
        lambda: deploy.quantize([str(other)], calibration=path, out=out),
        lambda: deploy.merge_calibration(str(other), [path], out=out),
    ):
        with pytest.raises(CalibrationError, match=r"of another graph .*deploy calibrate .*other"):
            act()
    assert not (out / "other").exists()


def test_quantize_with_a_calibration_of_another_fit_or_several_targets_is_refused(
    model: Path, voc_root: Path, out: Path
) -> None:
    path = calibrate(model, voc_root, out)
    with pytest.raises(CalibrationError, match="made with fit crop, not pad"):
        deploy.quantize([str(model)], calibration=path, fit=Fit.PAD, out=out)
    with pytest.raises(DeployError, match="a calibration is of one graph, not of 2"):
        deploy.quantize([str(model), str(model)], calibration=path, out=out)


def test_quantize_with_a_calibration_that_lacks_a_tensor_is_refused(
    model: Path, voc_root: Path, out: Path
) -> None:
    path = calibrate(model, voc_root, out)
    content = json.loads(path.read_text())
    del content["tensors"]["r4"]
    path.write_text(json.dumps(content))
    with pytest.raises(CalibrationError, match="lacks tensor r4: calibrate anew"):
        deploy.quantize([str(model)], calibration=path, out=out)


def test_merge_of_parts_that_share_an_image_is_refused(
    model: Path, voc_root: Path, out: Path
) -> None:
    part = calibrate(model, voc_root, out, part=(1, 2))
    before = sorted((p, p.stat().st_mtime_ns) for p in out.rglob("*") if p.is_file())
    with pytest.raises(CalibrationError, match=r"image train_0 is in .* it would count twice"):
        deploy.merge_calibration(str(model), [part, part], out=out)
    with pytest.raises(CalibrationError, match="no parts to merge"):
        deploy.merge_calibration(str(model), [], out=out)
    assert sorted((p, p.stat().st_mtime_ns) for p in out.rglob("*") if p.is_file()) == before


@pytest.mark.parametrize("part", [(0, 2), (3, 2), (1, 6)])
def test_calibrate_of_a_part_that_is_none_is_refused(
    part: tuple[int, int], model: Path, voc_root: Path, out: Path
) -> None:
    with pytest.raises(CalibrationError, match=r"there is no part .* of 5 images"):
        calibrate(model, voc_root, out, part=part)
    assert not out.exists()


@pytest.mark.parametrize("one_color", ["same", "each"])
def test_calibrate_on_images_of_one_color_is_refused(
    one_color: str, model: Path, voc_root: Path, out: Path
) -> None:
    for i in range(6):
        color = (90, 90, 90) if one_color == "same" else (40 * i, 7, 200)
        image = Image.new("RGB", (48, 36), color)
        image.save(voc_root / "JPEGImages" / f"train_{i}.jpg")
    with pytest.raises(CalibrationError, match="each of the 5 calibration images has one colour"):
        calibrate(model, voc_root, out)
    assert not out.exists()


def test_calibrate_on_one_image_of_one_color_among_others_is_fine(
    model: Path, voc_root: Path, out: Path
) -> None:
    Image.new("RGB", (48, 36)).save(voc_root / "JPEGImages" / "train_0.jpg")
    assert calibrate(model, voc_root, out).is_file()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("", "lists no images: the split is empty"),
        ("train_0\ntrain_1\n", "5 calibration images asked for, but split 'few' .* has 2"),
        ("train_0\ntrain_1\ntrain_2\ntrain_3\nval_1", "also in 'val'"),
        ("train_0\ntrain_1\ntrain_2\ntrain_3\nnone", r"none\.jpg does not exist"),
    ],
    ids=["empty", "too_few", "evaluated", "missing"],
)
def test_calibrate_on_a_set_that_will_not_do_is_refused(
    names: str, message: str, model: Path, voc_root: Path, out: Path
) -> None:
    (voc_root / "ImageSets" / "Segmentation" / "few.txt").write_text(names)
    with pytest.raises((DataError, CalibrationError), match=message):
        calibrate(model, voc_root, out, split="few")
    assert not out.exists()


def test_calibrate_on_an_image_that_cannot_be_read_names_it(
    model: Path, voc_root: Path, out: Path
) -> None:
    (voc_root / "JPEGImages" / "train_1.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"train_1\.jpg cannot be decoded"):
        calibrate(model, voc_root, out)
    assert not out.exists()


def conv(source: str, target: str) -> onnx.NodeProto:
    return helper.make_node("Conv", [source, "w"], [target], name=f"conv_{target}")


def dynamic() -> onnx.ModelProto:
    return make_model([conv("image", "logits")], {"w": WEIGHT}, input_shape=(1, 3, "h", "w"))


def old_opset() -> onnx.ModelProto:
    return make_model([conv("image", "logits")], {"w": WEIGHT}, opset=12)


def quantized() -> onnx.ModelProto:
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "s", "z"], ["q"], name="q"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], name="d"),
        conv("d", "logits"),
    ]
    return make_model(nodes, {"w": WEIGHT, "s": np.float32(1), "z": np.uint8(0)})


def without_convolution() -> onnx.ModelProto:
    return make_model([helper.make_node("Relu", ["image"], ["logits"], name="relu")], {})


def not_finite() -> onnx.ModelProto:
    nodes = [conv("image", "a"), helper.make_node("Log", ["a"], ["b"]), conv("b", "logits")]
    return make_model(nodes, {"w": -np.abs(WEIGHT)})


def external_data() -> onnx.ModelProto:
    model = refine_model()
    onnx.external_data_helper.convert_model_to_external_data(
        model, location="weights.bin", size_threshold=0
    )
    return model


BAD = {
    "dynamic": (dynamic, "is 1x3xhxw: a fixed 1x3xHxW is expected"),
    "old_opset": (old_opset, "opset is 12: quantization needs 13"),
    "quantized": (quantized, "quantized already"),
    "without_convolution": (without_convolution, "no convolution"),
    "not_finite": (not_finite, "the graph cannot be calibrated"),
    "external_data": (external_data, "keeps parameters in other files"),
}


@pytest.mark.parametrize("command", ["quantize", "calibrate"])
@pytest.mark.parametrize("bad", BAD)
def test_graph_that_cannot_be_calibrated_is_one_line_and_nothing_written(
    bad: str,
    command: str,
    voc_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make, message = BAD[bad]
    model = tmp_path / "graphs" / "bad.onnx"
    model.parent.mkdir()
    onnx.save(make(), model)
    if bad == "external_data":
        shutil.move(model.parent / "weights.bin", tmp_path)  # missing beside the graph
    arguments = [command, str(model), "--images", "5", "--voc-root", str(voc_root)]
    monkeypatch.setattr(sys, "argv", ["deploy", *arguments, "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as exit_:
        main()
    captured = capsys.readouterr()
    assert exit_.value.code == 1
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert not (tmp_path / "out").exists()


def test_graph_with_external_data_is_refused_where_it_is_there_too(
    voc_root: Path, tmp_path: Path
) -> None:
    onnx.save(external_data(), tmp_path / "whole.onnx")
    with pytest.raises(GraphError, match="external data"):
        calibrate(tmp_path / "whole.onnx", voc_root, tmp_path / "out")
