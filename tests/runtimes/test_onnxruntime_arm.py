"""onnxruntime's own aarch64 kernels on emulated cores, and ncnn's: small graphs, a few seconds."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import quantized, refine_model, run
from toolchains import needs_arm

import deploy
from deploy import models
from deploy.calibration.preprocess import Float32Array
from deploy.calibration.scenes import write_scenes
from deploy.errors import DeployError, GraphError
from deploy.runtimes import onnxruntime_arm
from deploy.runtimes.ncnn import NcnnRunner
from deploy.runtimes.onnxruntime_arm import ArmRunner
from deploy.runtimes.open import find_backend
from deploy.runtimes.runner import Runtime
from deploy.runtimes.saturation import saturates
from deploy.toolchains.arm import CORES, DEFAULT_CORE

IMAGE = np.random.default_rng(1).standard_normal((1, 3, 16, 16), dtype=np.float32)


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def test_what_is_missing_or_unknown_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(DeployError, match=r"^toolchain arm is not installed: run 'deploy toolch"):
        find_backend(Runtime.ONNXRUNTIME_ARM)
    with pytest.raises(DeployError, match=r"^no ARM core 'sm8550': choose one of cortex-a53, "):
        find_backend(Runtime.ONNXRUNTIME_ARM, "sm8550")
    with pytest.raises(DeployError, match=r"^toolchain arm is not installed: run 'deploy toolch"):
        find_backend(Runtime.NCNN, "cortex-a72")


@pytest.mark.long
@needs_arm
@pytest.mark.parametrize("core", CORES)
def test_no_cores_kernels_saturate(core: str, tmp_path: Path) -> None:
    def on_core(model: onnx.ModelProto, image: Float32Array) -> Float32Array:
        runner = ArmRunner(saved(model, tmp_path), CORES[core], 1)
        execution = runner.execution()
        assert (execution.integer_convolutions, execution.convolutions) == (1, 1)
        return runner(image)[None]

    assert not saturates(on_core)


@pytest.mark.long
@needs_arm
@pytest.mark.parametrize("target", ["ort", "ort-arm"])
def test_every_convolution_computes_in_the_graphs_integers(target: str, tmp_path: Path) -> None:
    model = quantized(refine_model(), [IMAGE], target)
    runner = ArmRunner(saved(model, tmp_path), CORES[DEFAULT_CORE])
    execution = runner.execution()
    assert (execution.integer_convolutions, execution.convolutions) == (4, 4)
    expected = run(model, IMAGE)[0]
    assert np.abs(runner(IMAGE) - expected).max() < 2 * np.ptp(expected) / 255


@needs_arm
def test_a_graph_that_it_does_not_take_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(refine_model(), path)
    model = onnx.load(path)
    model.graph.node[0].domain = "vendors.own"
    model.opset_import.append(onnx.helper.make_opsetid("vendors.own", 1))
    onnx.save(model, path)
    with pytest.raises(
        GraphError, match=r"^onnxruntime on neoverse-n1 cannot load .*model.onnx: "
    ) as caught:
        ArmRunner(path, CORES[DEFAULT_CORE])
    assert "\n" not in str(caught.value)


@needs_arm
def test_a_run_without_an_end_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime_arm, "LOAD_SECONDS", 0.01)
    with pytest.raises(GraphError, match=r"neoverse-n1 gave no answer within 0\.01 s$"):
        ArmRunner(saved(refine_model(), tmp_path), CORES[DEFAULT_CORE])


@needs_arm
def test_ncnns_own_arm_kernels_compute_our_integers(tmp_path: Path) -> None:
    model = quantized(refine_model(), [IMAGE], "ncnn")
    runner = NcnnRunner(saved(model, tmp_path), core=CORES["cortex-a72"])
    assert runner.execution().integer_convolutions == 4
    expected = run(model, IMAGE)[0]
    assert np.abs(runner(IMAGE) - expected).max() < 2 * np.ptp(expected) / 255


@pytest.mark.long
@needs_arm
def test_validation_names_the_core_and_gives_no_latency(tmp_path: Path) -> None:
    root, out = write_scenes(tmp_path / "scenes", train=2, val=1, seed=1), tmp_path / "artifacts"
    deploy.export(models.DEFAULT_VARIANT, out=out, input_size=(128, 128))
    deploy.quantize(
        [models.DEFAULT_VARIANT],
        fp16=False,
        target=["ort", "ort-arm"],
        recipe="plain",
        images=2,
        voc_root=root,
        out=out,
    )
    (measured,) = deploy.validate(
        [models.DEFAULT_VARIANT], runtime=Runtime.ONNXRUNTIME_ARM, voc_root=root, out=out
    )
    assert (measured["runtime"], measured["soc"]) == ("onnxruntime-arm", DEFAULT_CORE)
    results = measured["results"]
    assert set(results) == {"torch", "int8", "int8-ort-arm"}
    for name in ("int8", "int8-ort-arm"):
        assert results[name]["int8_convolutions"] == [78, 78]
        assert results[name]["latency_ms"] is None
    assert (out / models.DEFAULT_VARIANT / "validation-onnxruntime-arm-neoverse-n1.json").is_file()
