"""ReLU before Concat, and poolings in ``ceil_mode``: another form, the same numbers."""

import numpy as np
import onnx
import pytest
from graphs import make_model, run
from onnx import helper

from deploy.graph.canonical import canonical
from deploy.graph.graph import Graph, attributes, count_ops

node = helper.make_node
R = np.random.default_rng(0)
IMAGE = R.standard_normal((1, 3, 16, 16), dtype=np.float32)
W = {name: R.standard_normal((3, 3, 1, 1), dtype=np.float32) for name in ("w1", "w2")}
HEAD = R.standard_normal((4, 6, 1, 1), dtype=np.float32)


def joined(*, taken_raw: bool = False, constant: bool = False) -> onnx.ModelProto:
    """Return Conv, Conv → Concat → Relu → Conv; the first part goes elsewhere, too."""
    parts = ["a", "c"] if constant else ["a", "b"]
    nodes = [
        node("Conv", ["image", "w1"], ["a"], name="conv_a"),
        node("Conv", ["image", "w2"], ["b"], name="conv_b"),
        node("Concat", parts, ["joined"], name="concat", axis=1),
        node("Relu", ["joined"], ["rectified"], name="relu"),
        node("Conv", ["rectified", "head"], ["made"], name="conv_head"),
        node("Conv", ["joined" if taken_raw else "rectified", "head"], ["more"], name="conv_more"),
        node("Conv", ["a", "first"], ["again"], name="conv_again"),
        node("Add", ["made", "more"], ["sum"], name="add"),
        node("Add", ["sum", "again"], ["logits"], name="add_again"),
    ]
    constants = {**W, "head": HEAD, "first": R.standard_normal((4, 3, 1, 1), dtype=np.float32)}
    if constant:
        constants["c"] = np.full((1, 3, 16, 16), -1, np.float32)
    return make_model(nodes, constants)


def test_relu_goes_before_the_concat_and_into_what_makes_its_parts() -> None:
    model = joined()
    made = canonical(model)
    onnx.checker.check_model(made, full_check=True)
    assert count_ops(made)["Relu"] == 2
    graph = Graph(made)
    concat = graph.producers["rectified"]
    assert concat.op_type == "Concat"
    relus = [graph.producers[name] for name in concat.input]
    assert [(relu.op_type, relu.input[0]) for relu in relus] == [("Relu", "a"), ("Relu", "b")]
    np.testing.assert_array_equal(run(made, IMAGE), run(model, IMAGE))
    assert canonical(made) is made


@pytest.mark.parametrize("case", ["taken_raw", "constant"])
def test_relu_stays_behind_where_the_parts_are_wanted_or_constant(case: str) -> None:
    model = joined(**{case: True})
    assert canonical(model) is model


def pooled(op_type: str, size: int, **given: object) -> onnx.ModelProto:
    pool = node(op_type, ["image"], ["p"], name="pool", kernel_shape=[3, 3], **given)
    conv = node("Conv", ["p", "w1"], ["logits"], name="conv")
    return make_model([pool, conv], {"w1": W["w1"]}, input_shape=(1, 3, size, size))


@pytest.mark.parametrize("size", [15, 16, 17])
@pytest.mark.parametrize("pads", [[0] * 4, [1] * 4, [0, 1, 1, 0]], ids=str)
@pytest.mark.parametrize("op_type", ["MaxPool", "AveragePool"])
def test_a_window_beyond_the_end_becomes_padding(op_type: str, pads: list[int], size: int) -> None:
    model = pooled(op_type, size, strides=[2, 2], pads=pads, ceil_mode=1)
    made = canonical(model)
    assert not attributes(made.graph.node[0]).get("ceil_mode")
    image = R.standard_normal((1, 3, size, size), dtype=np.float32) - 5
    expected = run(model, image)
    assert run(made, image).shape == expected.shape
    np.testing.assert_allclose(run(made, image), expected, rtol=1e-5)


def test_a_mean_that_counts_padding_keeps_its_ceil_mode() -> None:
    given = {"strides": [2, 2], "ceil_mode": 1, "count_include_pad": 1}
    model = pooled("AveragePool", 16, **given)
    assert canonical(model) is model
