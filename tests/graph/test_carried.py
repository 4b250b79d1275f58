"""A QDQ graph as a float one with ranges: the same network, nothing rounded twice."""

import numpy as np
import onnx
import pytest
from graphs import quantized, refine_model, run
from onnx import helper

from deploy.errors import GraphError
from deploy.graph.carried import carried, with_old_ir
from deploy.graph.graph import Graph, count_ops
from deploy.graph.qdq import QdqGraph
from deploy.quantize.fp16 import convert_fp16

IMAGE = np.random.default_rng(1).standard_normal((1, 3, 16, 16), dtype=np.float32)


def sqnr_db(expected: np.ndarray, found: np.ndarray) -> float:
    noise = float(np.square(expected - found, dtype=np.float64).sum())
    return 10 * float(np.log10(np.square(expected, dtype=np.float64).sum() / noise))


@pytest.mark.parametrize("target", ["ort-arm", "openvino", "qnn", "sophgo", "rockchip"])
def test_it_is_a_float_graph_whose_weights_are_the_integers_values(target: str) -> None:
    model = quantized(refine_model(), [IMAGE], target)
    result = carried(model).model
    assert not count_ops(result).keys() & {"QuantizeLinear", "DequantizeLinear"}
    onnx.checker.check_model(result, full_check=True)
    assert [o.name for o in result.graph.output] == [o.name for o in model.graph.output]
    given, found = QdqGraph.of(model), Graph(result)
    for node in found.model.graph.node:
        if node.op_type == "Conv":
            (same,) = (n for n in given.model.graph.node if n.name == node.name)
            q, affine = given.integers(same.input[1]), given.dequantized(same.input[1])
            assert q is not None
            assert affine is not None
            steps = found.constants[node.input[1]] / affine.scale.reshape(-1, 1, 1, 1)
            np.testing.assert_allclose(steps, q, atol=1e-4)
    # without the rounding of activations it is nearer to the float network
    expected = run(refine_model(), IMAGE)
    assert sqnr_db(expected, run(result, IMAGE)) > sqnr_db(expected, run(model, IMAGE))


def test_every_tensor_has_its_range_and_what_an_activation_absorbs_that_ones() -> None:
    model = quantized(refine_model(), [IMAGE], "sophgo")
    result = carried(model)
    graph = Graph(result.model)
    tensors = {graph.input.name, *(name for n in graph.model.graph.node for name in n.output)}
    assert result.ranges.keys() == tensors
    for node in graph.model.graph.node:
        if node.op_type in ("Relu", "Clip"):
            assert result.ranges[node.input[0]] == result.ranges[node.output[0]]
            assert result.ranges[node.output[0]][0] == 0
    low, high = result.ranges[graph.input.name]
    assert low == pytest.approx(IMAGE.min(), rel=0.02)
    assert high == pytest.approx(IMAGE.max(), rel=0.02)


def test_a_float_graph_stays_and_halves_become_floats() -> None:
    model = refine_model()
    assert carried(model).model is model
    assert not carried(model).ranges
    half = convert_fp16(Graph(model), {}).model
    result = carried(half)
    assert result.was_half
    assert not result.ranges
    assert "Cast" not in count_ops(result.model)
    onnx.checker.check_model(result.model, full_check=True)
    expected = run(model, IMAGE)
    assert sqnr_db(expected, run(result.model, IMAGE)) > 55


def test_bare_integers_are_refused_by_name() -> None:
    model = quantized(refine_model(), [IMAGE], "sophgo")
    (pool,) = (n for n in model.graph.node if n.op_type == "MaxPool")
    quantizer = next(n for n in model.graph.node if n.op_type == "QuantizeLinear")
    model.graph.node.append(
        helper.make_node("MaxPool", [quantizer.output[0]], ["bare"], "bare", kernel_shape=[1, 1])
    )
    with pytest.raises(GraphError, match=r"bare \(MaxPool\) computes on bare integers"):
        carried(model)
    assert pool.name != "bare"


def test_an_older_ir_version_changes_nothing_else() -> None:
    model = refine_model()
    older = with_old_ir(model, 8)
    assert older.ir_version == 8
    assert older.graph == model.graph
