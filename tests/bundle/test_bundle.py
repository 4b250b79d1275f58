"""Bundles: complete, described rightly, reproducible, refused with one line."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from bundles import COMMON, DEVICE, PLAIN, VARIANT, check, make, names, triton_config
from google.protobuf import text_format
from graphs import refine_model
from results import validation
from toolchains import is_installed
from typer.testing import CliRunner

import deploy
from deploy import models
from deploy.bundle.contents import AGREEMENT, golden_pixels
from deploy.calibration.preprocess import normalize
from deploy.calibration.record import file_sha256
from deploy.calibration.voc import CLASSES
from deploy.cli import app
from deploy.errors import DeployError, GraphError
from deploy.export.heads import wrap
from deploy.export.interface import Interface
from deploy.graph.metadata import set_metadata
from deploy.graph.reading import read_graph
from deploy.runtimes.torch import TorchRunner
from deploy.targets import Toolchain
from deploy.targets.accelerator import Precision

TRITON = {f"models/{VARIANT}-int8/1/model.onnx", f"models/{VARIANT}-int8/config.pbtxt"}
OWN = {
    Toolchain.TRITON: TRITON,
    Toolchain.OPENVINO: {"model.xml", "model.bin"},
    Toolchain.TENSORRT: {"model.onnx", "build.sh", "golden-input.bin"},
    Toolchain.QNN: {"model.onnx", "contexts/sm8550.onnx", "contexts/sm8550_qnn.bin"},
    Toolchain.NCNN: {"model.param", "model.bin"},
    Toolchain.VACC: {
        *("fp32.onnx", "compile.yaml", "preprocess.json", "images.sha256"),
        *(f"images/scene_1_train_00000{i}.jpg" for i in range(2)),
    },
    Toolchain("ort-arm"): {"model.onnx"},
    Toolchain("litert"): {"model.tflite"},
    Toolchain("sophgo"): {
        *("model.onnx", "build.sh", "calibration_table"),
        *(["bm1684x.bmodel"] if is_installed("sophgo") else []),
    },
    Toolchain("rockchip"): {"model.onnx", "build.py"},
    Toolchain("k230"): {"model.onnx", "build.py", "calibration.npz"},
}


WRITTEN_BY = {  # packages, of which some are installed apart
    Toolchain("openvino"): "openvino",
    Toolchain("qnn"): "onnxruntime_qnn",
    Toolchain("litert"): "ai_edge_litert",
}


@pytest.mark.parametrize("toolchain", Toolchain)
def test_bundle_is_complete_and_its_checksums_hold(
    toolchain: Toolchain, bundled_artifacts: Path, tmp_path: Path
) -> None:
    if toolchain in WRITTEN_BY:
        pytest.importorskip(WRITTEN_BY[toolchain])
    folder = make(bundled_artifacts, tmp_path, toolchain)
    assert names(folder) == COMMON | OWN[toolchain]
    listed = [line.split("  ", 1)[1] for line in (folder / "SHA256SUMS").read_text().splitlines()]
    assert set(listed) == names(folder) - {"SHA256SUMS"}
    command = [shutil.which("sha256sum") or "sha256sum", "--quiet", "-c", "SHA256SUMS"]
    assert subprocess.run(command, cwd=folder, check=False).returncode == 0
    (folder / "labels.txt").write_text("cat\n")
    spoiled = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert "labels.txt: FAILED" in spoiled.stdout
    text = (folder / "README.md").read_text()
    assert text.startswith(f"# {VARIANT}-int8 for ")
    assert 10 <= len(text.splitlines()) <= 12
    assert "{" not in text


@pytest.mark.parametrize("toolchain", [Toolchain.TRITON, Toolchain.OPENVINO])
@pytest.mark.parametrize("interface", [PLAIN, DEVICE], ids=["plain", "device"])
def test_bundle_says_what_the_model_takes_and_gives(
    toolchain: Toolchain, interface: Interface, bundled_artifacts: Path, tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    folder = make(bundled_artifacts, tmp_path, toolchain, interface)
    model = json.loads((folder / "model.json").read_text())
    golden = np.load(folder / "golden.npz")
    for key in ("input", "output"):
        array = golden[model[key]["name"]]
        assert [array.dtype.name, list(array.shape)] == [model[key]["type"], model[key]["shape"]]
    assert model["preprocessing"]["size"] == [64, 96]
    assert model["preprocessing"]["mean"] == [0.485, 0.456, 0.406]
    assert model["preprocessing"]["fit"] == "crop"
    assert (folder / "labels.txt").read_text().split() == list(CLASSES)
    if interface is DEVICE:
        assert model["input"] == {
            "name": "image",
            "type": "uint8",
            "shape": [1, 64, 96, 3],
            "layout": "NHWC",
        }
        assert model["output"]["shape"] == [1, 64, 96]
        assert model["preprocessing"]["normalized_by"] == "the model"
    else:
        pixels = golden["pixels"][0]
        np.testing.assert_array_equal(golden["image"], normalize(pixels))
        assert model["output"]["shape"] == [1, 21, 16, 24]
        assert model["preprocessing"]["normalized_by"] == "you"


@pytest.mark.parametrize(
    ("toolchain", "precision"),
    [
        (Toolchain.TRITON, Precision.INT8),
        (Toolchain.OPENVINO, Precision.INT8),
        (Toolchain.OPENVINO, Precision.FP16),
        (Toolchain.TENSORRT, Precision.FP16),
    ],
)
def test_bundle_gives_its_golden_output(
    toolchain: Toolchain, precision: Precision, bundled_artifacts: Path, tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    folder = make(bundled_artifacts, tmp_path, toolchain, PLAIN, precision)
    result = check(folder)
    assert result.returncode == 0, result.stderr
    assert "% of the labels agree" in result.stdout


def test_check_of_another_output_fails(bundled_artifacts: Path, tmp_path: Path) -> None:
    folder = make(bundled_artifacts, tmp_path, Toolchain.TRITON)
    golden = dict(np.load(folder / "golden.npz"))
    np.savez(folder / "golden.npz", **golden | {"logits": golden["logits"][:, ::-1]})
    result = check(folder)
    assert result.returncode == 1
    assert "% of the labels agree (90% are wanted)" in result.stdout


def test_golden_image_tells_red_from_blue() -> None:
    module, _ = models.build_with_weights(VARIANT)
    network, pixels = TorchRunner(module), golden_pixels((500, 500))
    rgb, bgr = (network(normalize(p))[0].argmax(axis=0) for p in (pixels, pixels[..., ::-1]))
    assert len(np.unique(rgb)) >= 6
    assert (rgb == bgr).mean() < min(AGREEMENT.values()) - 0.1


def test_bundle_twice_gives_the_same_bytes(bundled_artifacts: Path, tmp_path: Path) -> None:
    folder = make(bundled_artifacts, tmp_path, Toolchain.TENSORRT, DEVICE)
    before = {name: (folder / name).read_bytes() for name in names(folder)}
    (folder / "left-over.txt").write_text("of an earlier bundle")
    make(bundled_artifacts, tmp_path, Toolchain.TENSORRT, DEVICE)
    assert {name: (folder / name).read_bytes() for name in names(folder)} == before


@pytest.mark.parametrize(
    ("toolchain", "precision", "command"),
    [
        (Toolchain.TRITON, Precision.INT8, f"deploy quantize {VARIANT} --int8 --target ort"),
        (Toolchain.OPENVINO, Precision.INT8, f"quantize {VARIANT} --int8 --target openvino"),
        (Toolchain.TENSORRT, Precision.FP16, f"deploy quantize {VARIANT} --fp16"),
        (Toolchain.NCNN, Precision.INT8, f"deploy quantize {VARIANT} --int8 --target ncnn"),
        (Toolchain.TRITON, Precision.FP32, f"deploy export {VARIANT}"),
        (Toolchain.VACC, Precision.INT8, f"deploy quantize {VARIANT} --int8 --target vacc"),
        (Toolchain.VACC, Precision.FP16, f"deploy quantize {VARIANT} --fp16 --target vacc"),
    ],
)
def test_graph_that_is_missing_is_named_with_what_makes_it(
    toolchain: Toolchain, precision: Precision, command: str, tmp_path: Path
) -> None:
    with pytest.raises(DeployError, match=rf"no graph at .*: run '[a-z ]*{command}'$"):
        deploy.bundle(VARIANT, toolchain, precision=precision, out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_folder_that_is_no_bundle_is_left_alone(bundled_artifacts: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "thesis.txt").write_text("mine")
    with pytest.raises(DeployError, match="is not empty and no bundle"):
        make(bundled_artifacts, tmp_path, Toolchain.TRITON)
    assert names(tmp_path) == {"bundle/thesis.txt"}


@pytest.mark.parametrize("toolchain", [Toolchain.TRITON, Toolchain.VACC])
def test_graphs_that_cannot_be_bundled_are_refused(
    toolchain: Toolchain, bundled_artifacts: Path, tmp_path: Path
) -> None:
    device = tmp_path / "device.onnx"
    model = read_graph(bundled_artifacts / VARIANT / "fp32.onnx")
    onnx.save(wrap(model, DEVICE), device)
    if toolchain is Toolchain.VACC:
        with pytest.raises(DeployError, match="vamc makes INT8 or FP16 of the plain float graph"):
            make(bundled_artifacts, tmp_path, toolchain, DEVICE)
        with pytest.raises(DeployError, match="vamc makes INT8 or FP16 of the plain float graph"):
            make(bundled_artifacts, tmp_path, toolchain, PLAIN, Precision.FP32)
        return
    with pytest.raises(GraphError, match="bundle the plain graph"):
        deploy.bundle(str(device), toolchain, precision=Precision.FP32, out=tmp_path)
    onnx.save(refine_model(), tmp_path / "mine.onnx")
    with pytest.raises(GraphError, match="does not name a class for each logit"):
        deploy.bundle(
            str(tmp_path / "mine.onnx"), toolchain, precision=Precision.FP32, out=tmp_path
        )
    assert names(tmp_path) == {"device.onnx", "mine.onnx"}


def test_onnx_file_that_names_its_classes_is_bundled(tmp_path: Path) -> None:
    model = refine_model()
    set_metadata(model, {"classes": "sky,sea,land,ship", "fit": "squash", "weights": "random"})
    onnx.save(model, tmp_path / "mine.onnx")
    written = deploy.bundle(
        str(tmp_path / "mine.onnx"), Toolchain.TRITON, precision=Precision.FP32, out=tmp_path
    )
    assert written.path == tmp_path / "mine" / "bundle-triton-fp32"
    assert (written.path / "labels.txt").read_text() == "sky\nsea\nland\nship\n"
    assert json.loads((written.path / "model.json").read_text())["preprocessing"]["fit"] == "squash"
    assert "Accuracy: none, its parameters are random." in (written.path / "README.md").read_text()
    (config,) = written.path.rglob("config.pbtxt")
    assert text_format.Parse(config.read_text(), triton_config()).instance_group[0].kind == 0


def test_accuracy_is_that_of_the_very_file(bundled_artifacts: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(bundled_artifacts, tmp_path / "artifacts"))
    text = (make(out, tmp_path, Toolchain.TRITON) / "README.md").read_text()
    assert "Accuracy: not measured" in text
    results = validation()
    path = out / VARIANT / "validation.json"
    path.write_text(json.dumps(results))  # of another file: its checksum differs
    text = (make(out, tmp_path, Toolchain.TRITON) / "README.md").read_text()
    assert "Accuracy: not measured" in text
    results["results"]["int8"]["sha256"] = file_sha256(out / VARIANT / "int8.onnx")
    path.write_text(json.dumps(results))
    text = (make(out, tmp_path, Toolchain.TRITON, DEVICE) / "README.md").read_text()
    assert (
        "Accuracy: mIoU 59.35% (torch 61.09%), 97.80% of the labels as torch's; 50 images of "
        "VOC2012 val, protocol crop, in onnxruntime, 2026-11-22.\n"
    ) in text


def test_command_line_says_what_is_in_the_bundle(bundled_artifacts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "b"
    command = ["bundle", VARIANT, "--out", str(bundled_artifacts), "--to", str(folder)]
    result = CliRunner().invoke(app, [*command, "--target", "tensorrt", "--head", "labels"])
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"{folder}  (")
    assert set(lines[1:-2]) == {f"  {name}" for name in names(folder)}
    assert lines[-2:] == [
        "note: no device was at hand: build.sh has not been run",
        f"check: cd {folder} && sha256sum -c SHA256SUMS && python3 check.py output.json",
    ]
    result = CliRunner().invoke(app, [*command, "--target", "tensorrt", "--json"])
    assert json.loads(result.stdout)["path"] == str(folder)
    assert CliRunner().invoke(app, command).exit_code == 2
    assert CliRunner().invoke(app, [*command, "--target", "tpu"]).exit_code == 2
