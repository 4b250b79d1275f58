"""Graphs in opset 11: the same numbers bit for bit, or one line."""

from typing import Any

import numpy as np
import onnx
import pytest
from graphs import make_model, quantized, refine_model, run
from onnx import helper

from deploy.errors import GraphError
from deploy.graph.graph import attributes, opset
from deploy.graph.opset11 import as_opset_11

IMAGE = np.random.default_rng(0).standard_normal((1, 3, 16, 16)).astype(np.float32)
SIZES = {"sizes": np.array([1, 3, 31, 20], np.int64)}


def one_node(
    op_type: str,
    inputs: tuple[str, ...] = ("image",),
    constants: dict[str, Any] | None = None,
    version: int = 18,
    **given: Any,
) -> onnx.ModelProto:
    node = helper.make_node(op_type, inputs, ["logits"], name="it", **given)
    return make_model([node], constants or {}, opset=version)


def check_same(model: onnx.ModelProto) -> onnx.ModelProto:
    before = model.SerializeToString()
    old = as_opset_11(model)
    assert model.SerializeToString() == before
    assert (opset(old), old.ir_version) == (11, 6)
    onnx.checker.check_model(old, full_check=True)
    np.testing.assert_array_equal(run(old, IMAGE), run(model, IMAGE))
    return old


def test_graph_keeps_its_numbers_and_names() -> None:
    model = refine_model()
    old = check_same(model)
    assert [n.name for n in old.graph.node] == [n.name for n in model.graph.node]
    assert [n.output for n in old.graph.node] == [n.output for n in model.graph.node]
    assert as_opset_11(old).SerializeToString() == old.SerializeToString()


@pytest.mark.parametrize("version", [13, 18, 19])
@pytest.mark.parametrize("inputs", [("image", "", "", "sizes"), ("image", "", "scales")])
def test_resize_names_what_it_leaves_out(inputs: tuple[str, ...], version: int) -> None:
    scales = {"scales": np.array([1, 1, 2, 1.5], np.float32)}
    given = SIZES if "sizes" in inputs else scales
    model = one_node("Resize", inputs, given, version, mode="linear")
    (node,) = check_same(model).graph.node
    assert list(node.input[1:]) == (
        ["resize/no_roi", "resize/no_scales", "sizes"]
        if "sizes" in inputs
        else ["resize/no_roi", "scales"]
    )


def test_attributes_that_mean_nothing_new_are_left_out() -> None:
    inputs = ("image", "", "", "sizes")
    model = one_node("Resize", inputs, SIZES, mode="linear", antialias=0)
    assert attributes(check_same(model).graph.node[0]) == {"mode": b"linear"}
    flat = one_node("Reshape", ("image", "shape"), {"shape": np.array([1, -1])}, allowzero=0)
    assert attributes(check_same(flat).graph.node[0]) == {}


def test_metadata_stay_but_those_of_nodes_go() -> None:
    model = refine_model()
    model.metadata_props.add(key="fit", value="squash")
    model.graph.node[0].metadata_props.add(key="source", value="somewhere")
    old = check_same(model)
    assert [(p.key, p.value) for p in old.metadata_props] == [("fit", "squash")]
    assert not old.graph.node[0].metadata_props


def test_an_older_graph_stays_of_its_opset() -> None:
    old = as_opset_11(one_node("Relu", version=9))
    assert (opset(old), old.ir_version) == (9, 6)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (one_node("Mish"), r"opset 11 has no operator of node it \(Mish\)"),
        (one_node("Softmax", axis=1), r"node it \(Softmax\) means something else in opset 11"),
        (
            one_node("Resize", ("image", "", "", "sizes"), SIZES, mode="linear", antialias=1),
            r"node it \(Resize\) has antialias, unknown in opset 11",
        ),
        (
            one_node(
                "Resize",
                ("image", "", "", "sizes"),
                SIZES,
                19,
                coordinate_transformation_mode="half_pixel_symmetric",
            ),
            "is half_pixel_symmetric, unknown in opset 11",
        ),
        (
            one_node(
                "Pad",
                ("image", "pads", "", "axes"),
                {"pads": np.array([1, 1]), "axes": np.array([2])},
            ),
            r"node it \(Pad\) takes or gives more than in opset 11",
        ),
    ],
    ids=["operator", "meaning", "attribute", "value", "input"],
)
def test_what_opset_11_lacks_is_one_line(model: onnx.ModelProto, message: str) -> None:
    with pytest.raises(GraphError, match=message) as error:
        as_opset_11(model)
    assert "\n" not in str(error.value)


def test_a_quantized_graph_is_refused() -> None:
    with pytest.raises(GraphError, match=r"QuantizeLinear\) means something else in opset 11"):
        as_opset_11(quantized(refine_model(), [IMAGE]))


def test_operators_of_others_and_subgraphs_are_refused() -> None:
    model = refine_model()
    model.graph.node[1].domain = "com.example"
    with pytest.raises(GraphError, match=r"relu1 \(Relu\) is of com.example, not of ONNX"):
        as_opset_11(model)
    model = refine_model()
    model.graph.node[1].attribute.append(helper.make_attribute("body", model.graph))
    with pytest.raises(GraphError, match=r"relu1 \(Relu\) holds a graph of its own"):
        as_opset_11(model)
