"""Qualcomm's HTP, in its emulator where onnxruntime-qnn is installed."""

from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import quantized, refine_model, run
from toolchains import needs_qnn

from deploy.errors import DeployError, GraphError
from deploy.quantize.rewrite import rewrite
from deploy.runtimes import packages, qnn
from deploy.runtimes.open import find_backend, open_graph
from deploy.runtimes.qnn_chips import CHIPS, DEFAULT_CHIP
from deploy.runtimes.runner import Runtime
from deploy.targets import PROFILES

SIZE = (1, 3, 16, 16)
DUMP = {
    "graph": {
        "nodes": {
            "a_token_7": {"type": "Conv2d", "input_names": ["x", "w"], "output_names": ["y"]},
            "b": {"type": "DepthWiseConv2d", "input_names": ["y", "f"], "output_names": ["z"]},
            "c": {"type": "ElementWiseAdd", "input_names": ["z", "z"], "output_names": ["f"]},
            "d": {"type": "Dequantize", "input_names": ["y"], "output_names": ["f"]},
        },
        "tensors": {
            "x": {"data_type": 0x0408},
            "w": {"data_type": 0x0308},
            "y": {"data_type": 0x0408},
            "z": {"data_type": 0x0216},
            "f": {"data_type": 0x0232},
        },
    }
}
LOG = """\
 <V> Prepare: Graph g with init graph option: vtcm_size = 8388608
 QnnLogging] spill_bytes=1024
 QnnLogging] fill_bytes=2048
 QnnLogging] write_total_bytes=4096
 QnnLogging] read_total_bytes=8192
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a small network's graph for HTP."""
    path = tmp_path_factory.mktemp("qnn") / "int8-qnn.onnx"
    model = refine_model()
    onnx.save(quantized(model, [image()], "qnn"), path)
    return path


def image() -> np.ndarray:
    return np.random.default_rng(1).normal(size=SIZE).astype(np.float32)


def test_only_convolutions_with_8_bit_image_weight_and_result_count() -> None:
    found = qnn.describe([DUMP])
    assert (found.integer_convolutions, found.float_convolutions) == (1, ("b",))
    assert found.float_nodes == {"ElementWiseAdd": ("c",)}
    assert found.conversions == 1


def test_the_log_tells_traffic_and_memory() -> None:
    assert qnn.read_footprint(LOG) == {
        "ddr_read_bytes": 8192,
        "ddr_write_bytes": 4096,
        "spilled_bytes": 1024,
        "fast_memory_bytes": 8388608,
    }
    assert qnn.read_footprint("nothing of the kind") == {}


def test_an_unknown_chip_is_one_line() -> None:
    with pytest.raises(DeployError, match=r"^no chip 'sm1': choose one of sm8350, "):
        find_backend(Runtime.QNN, "sm1")
    with pytest.raises(DeployError, match=r"^onnxruntime runs on this processor: leave out"):
        find_backend(Runtime.ONNXRUNTIME, DEFAULT_CHIP)


def test_what_is_not_installed_or_not_known_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> str:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(packages, "version", missing)
    with pytest.raises(DeployError, match=r"^onnxruntime-qnn is not installed: run \"pip install"):
        find_backend(Runtime.QNN)
    monkeypatch.setattr(packages, "version", lambda _: "9.0.0")
    with pytest.raises(DeployError, match=r"^onnxruntime-qnn 9.0.0 is installed, 2.7 is what"):
        find_backend(Runtime.QNN)


@needs_qnn
@pytest.mark.parametrize("soc", ["sm7325", "sm8550", "sm8850"])
def test_htp_computes_what_the_graph_says(soc: str, saved: Path) -> None:
    runner = open_graph(saved, find_backend(Runtime.QNN, soc))
    execution = runner.execution()
    assert execution is not None
    assert (execution.integer_convolutions, execution.convolutions) == (4, 4)
    assert execution.footprint is not None
    assert min(execution.footprint[key] for key in ("ddr_read_bytes", "context_bytes")) > 0
    assert execution.footprint["fast_memory_bytes"] >= 2**20
    expected, found = run(onnx.load(saved), image()), runner(image())
    assert found.shape == expected.shape[1:]
    step = np.ptp(expected) / 255
    assert np.abs(found - expected[0]).max() < 4 * step  # each operator rounds by itself


@needs_qnn
def test_two_images_go_through_one_session(saved: Path) -> None:
    runner = open_graph(saved, find_backend(Runtime.QNN))
    first, second = runner(image()), runner(2 * image())
    assert (first != second).any()
    assert (runner(image()) == first).all()


@needs_qnn
def test_what_htp_does_not_take_is_refused_not_computed_elsewhere(tmp_path: Path) -> None:
    graph = quantized(refine_model(classes=21), [image()])
    # channels are filled up to 24 by a bare Pad, and sliced off again
    onnx.save(rewrite(graph, PROFILES["ort"]), tmp_path / "int8.onnx")
    with pytest.raises(GraphError, match=r"^QNN for sm8550 cannot load .*int8.onnx: ") as caught:
        open_graph(tmp_path / "int8.onnx", find_backend(Runtime.QNN))
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("--soc sm8550' names what HTP refuses")


@needs_qnn
def test_every_chip_compiles_its_own_context(saved: Path) -> None:
    contexts = {
        name: qnn.compile_context(onnx.load(saved), CHIPS[name]) for name in ("sm8350", "sm8550")
    }
    for name, files in contexts.items():
        assert set(files) == {f"{name}.onnx", f"{name}_qnn.bin"}
    assert contexts["sm8350"]["sm8350_qnn.bin"] != contexts["sm8550"]["sm8550_qnn.bin"]
