import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import make_model, quantized, refine_model, relu_beside_sum_model, run
from onnx import TensorProto, helper

from deploy.errors import DeployError, GraphError
from deploy.graph.graph import Graph
from deploy.graph.reading import read_graph
from deploy.quantize.fp16 import convert_fp16
from deploy.runtimes.onnxruntime import OnnxRunner
from deploy.runtimes.open import BACKENDS, open_graph
from deploy.runtimes.openvino import OpenVinoRunner, openvino_core, openvino_saturates
from deploy.runtimes.runner import Runner, Runtime
from deploy.targets import PROFILES

PACKAGES = {
    Runtime.OPENVINO: "openvino",
    Runtime.QNN: "onnxruntime_qnn",
    Runtime.NCNN: "ncnn",
}
IMAGE = np.random.default_rng(0).standard_normal((1, 3, 16, 16), dtype=np.float32)


def test_onnx_runner_gives_logits_without_the_batch() -> None:
    logits = OnnxRunner(refine_model())(IMAGE)
    assert logits.shape == (4, 16, 16)
    assert logits.dtype == np.float32


def test_onnx_runner_half_input_is_converted() -> None:
    model = make_model([helper.make_node("Relu", ["image"], ["logits"])], {})
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    logits = OnnxRunner(model)(IMAGE)
    np.testing.assert_array_equal(logits, np.maximum(IMAGE, 0).astype(np.float16)[0])


def test_onnx_runner_integer_input_is_refused() -> None:
    model = make_model([helper.make_node("Relu", ["image"], ["logits"])], {})
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.elem_type = TensorProto.INT32
    with pytest.raises(GraphError, match="one float image"):
        OnnxRunner(model)


def test_onnx_runner_output_of_two_dimensions_is_refused() -> None:
    nodes = [helper.make_node("Flatten", ["image"], ["logits"])]
    with pytest.raises(GraphError, match="logits \\(1, classes, h, w\\) are expected"):
        OnnxRunner(make_model(nodes, {}))


def test_open_graph_half_is_emulated_and_timed_as_it_is(tmp_path: Path) -> None:
    half = convert_fp16(Graph(refine_model()), {}).model
    onnx.save(half, tmp_path / "half.onnx")
    runner = open_graph(tmp_path / "half.onnx")
    assert runner.timed is not None
    expected = run(refine_model(), IMAGE)[0]
    exact, emulated = runner.timed(IMAGE), runner(IMAGE)
    assert np.abs(emulated - expected).max() > np.abs(exact - expected).max() > 0


@pytest.mark.parametrize("content", [b"", b"\x00\xff\x00", b"no graph at all" * 9])
def test_read_graph_of_no_onnx_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(GraphError, match=r"broken\.onnx is no valid ONNX graph"):
        read_graph(path)


def test_read_graph_truncated_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.onnx"
    path.write_bytes(refine_model().SerializeToString()[:-200])
    with pytest.raises(GraphError, match=r"cut\.onnx"):
        read_graph(path)


def test_read_graph_missing_or_external_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="no ONNX file at"):
        read_graph(tmp_path / "none.onnx")
    path = tmp_path / "external.onnx"
    onnx.save(
        refine_model(), path, save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    with pytest.raises(GraphError, match="external data"):
        read_graph(path)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Return the path of the tiny network in float32."""
    onnx.save(refine_model(), tmp_path / "float.onnx")
    return tmp_path / "float.onnx"


def test_openvino_runner_computes_what_onnxruntime_does(saved: Path) -> None:
    pytest.importorskip("openvino")
    logits = OpenVinoRunner(saved)(IMAGE)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, run(refine_model(), IMAGE)[0], atol=1e-5)


def test_openvino_runner_of_another_signature_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    path = tmp_path / "flat.onnx"
    nodes = [helper.make_node("Flatten", ["image"], ["logits"])]
    onnx.save(make_model(nodes, {}), path)
    with pytest.raises(GraphError, match=r"flat\.onnx gives an output of shape"):
        OpenVinoRunner(path)


def test_openvino_runner_operator_that_it_lacks_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    model = make_model([helper.make_node("Relu", ["image"], ["logits"])], {})
    model.graph.node[0].op_type = "NoSuchOperator"
    path = tmp_path / "odd.onnx"
    onnx.save(model, path)
    with pytest.raises(GraphError, match=r"^OpenVINO cannot load .*odd\.onnx") as error:
        OpenVinoRunner(path)
    assert "\n" not in str(error.value)


def test_openvino_that_is_not_installed_is_one_line(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(DeployError, match="OpenVINO is not installed: run 'pip install openvino'"):
        open_graph(saved, BACKENDS[Runtime.OPENVINO])


def test_open_graph_half_is_emulated_by_onnxruntime_and_timed_in_openvino(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    onnx.save(convert_fp16(Graph(refine_model()), {}).model, tmp_path / "half.onnx")
    runner = open_graph(tmp_path / "half.onnx", BACKENDS[Runtime.OPENVINO])
    assert isinstance(runner, OnnxRunner)
    assert isinstance(runner.timed, OpenVinoRunner)
    assert counts(runner.timed) == (0, 4)


def counts(runner: Runner) -> tuple[int, int]:
    """Return how many convolutions compute in 8 bits, and how many there are."""
    execution = runner.execution()
    assert execution is not None
    return execution.integer_convolutions, execution.convolutions


@pytest.mark.parametrize("runtime", Runtime)
def test_convolutions_of_a_float_graph_are_none_in_8_bits(saved: Path, runtime: Runtime) -> None:
    if runtime in PACKAGES:
        pytest.importorskip(PACKAGES[runtime])
    try:
        BACKENDS[runtime].require()
    except DeployError as error:
        pytest.skip(str(error))
    assert counts(open_graph(saved, BACKENDS[runtime])) == (0, 4)


# onnxruntime's kernels want Q/DQ on every result and 32-bit biases: the profiles for others lack
# them. It runs S8S8 in integers on ARM alone; OpenVINO computes in float where activations are
# signed and their zero point is not 0.
RUNS_IN_8_BITS = [
    (Runtime.QNN, "qnn"),
    (Runtime.NCNN, "ncnn"),
    *((Runtime.ONNXRUNTIME, name) for name in ("ort", "ort-avx2", "qnn")),
    *((Runtime.OPENVINO, name) for name in PROFILES if name != "ort-arm"),
]


@pytest.mark.parametrize(("runtime", "target"), RUNS_IN_8_BITS)
def test_convolutions_are_all_in_8_bits(runtime: Runtime, target: str, tmp_path: Path) -> None:
    if runtime in PACKAGES:
        pytest.importorskip(PACKAGES[runtime])
    if runtime is Runtime.OPENVINO and openvino_saturates():
        pytest.skip("OpenVINO computes in float here: its 8-bit kernels saturate on this processor")
    onnx.save(quantized(refine_model(), [IMAGE], target), tmp_path / "int8.onnx")
    runner = open_graph(tmp_path / "int8.onnx", BACKENDS[runtime])
    assert counts(runner) == (4, 4)
    np.testing.assert_allclose(runner(IMAGE), run(refine_model(), IMAGE)[0], atol=0.5)


def test_execution_has_no_relu_that_the_quantization_after_it_does() -> None:
    model = quantized(relu_beside_sum_model(), [IMAGE])
    assert "Relu" not in OnnxRunner(model).execution().float_nodes


def test_convolutions_of_tensorrts_graph_are_float_in_onnxruntime(
    tmp_path: Path,
) -> None:
    onnx.save(quantized(refine_model(), [IMAGE], "tensorrt"), tmp_path / "int8.onnx")
    integer, total = counts(open_graph(tmp_path / "int8.onnx"))
    assert integer < total == 4


def test_openvino_has_one_core_a_process() -> None:
    # with a second one's end a signal would meet a freed stack: tests/bench/test_bench.py, then
    # tests/cli/test_commands.py in one process ended in a segmentation fault
    pytest.importorskip("openvino")
    assert openvino_core() is openvino_core()
