from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import make_model, refine_model, run
from onnx import TensorProto, helper

from deploy.errors import GraphError
from deploy.graph import Graph, read_graph
from deploy.quantize.fp16 import convert_fp16
from deploy.runtime import OnnxRunner, open_graph

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
