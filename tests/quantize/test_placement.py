import numpy as np
import onnx
import pytest
from graphs import make_model, refine_model, residual_model
from onnx import TensorProto, helper

from deploy.errors import GraphError
from deploy.graph.activations import fused_branch
from deploy.graph.graph import Graph, with_node_names
from deploy.quantize.placement import place
from deploy.targets import PROFILES

ORT, TENSORRT = PROFILES["ort"], PROFILES["tensorrt"]

W = np.ones((3, 3, 1, 1), dtype=np.float32)


def conv(source: str, target: str, weight: str = "w") -> onnx.NodeProto:
    return helper.make_node("Conv", [source, weight], [target], name=f"conv_{target}")


def test_place_quantizes_every_conv_add_pool_and_resize() -> None:
    placement = place(Graph(refine_model()), ORT)
    assert placement.nodes == [
        "conv1",
        "pool",
        "conv2",
        "depthwise",
        "resize",
        "add",
        "add_linear",
        "classifier",
    ]
    assert placement.kept_float == {}
    assert placement.observed == ["image", "r1", "k2", "c3", "r4", "s5", "logits"]
    assert placement.non_negative == {"r1", "k2", "r4"}


def test_place_names_what_stays_float_and_why() -> None:
    model = make_model(
        [
            conv("image", "a"),
            helper.make_node("Sigmoid", ["a"], ["b"], name="sigmoid"),
            helper.make_node("Add", ["b", "one"], ["c"], name="add_constant"),
            conv("c", "logits"),
        ],
        {"w": W, "one": np.float32(1)},
    )
    placement = place(Graph(model), ORT)
    assert placement.kept_float == {
        "sigmoid": "Sigmoid has no 8-bit form here",
        "add_constant": "one of its inputs is constant",
    }
    assert placement.nodes == ["conv_a", "conv_logits"]


def test_place_relu_whose_input_is_needed_elsewhere_is_not_fused() -> None:
    model = make_model(
        [
            conv("image", "a"),
            helper.make_node("Relu", ["a"], ["b"], name="relu"),
            conv("b", "c"),
            helper.make_node("Add", ["a", "c"], ["logits"], name="add"),
        ],
        {"w": W},
    )
    placement = place(Graph(model), ORT)
    assert placement.observed == ["image", "a", "b", "c", "logits"]
    assert placement.reads["relu"] == {"a"}
    assert placement.kept_float == {}  # what it takes and gives is quantized
    assert list(place(Graph(model), TENSORRT).kept_float) == ["relu"]


def test_place_convolution_with_a_computed_weight_stays_float() -> None:
    model = make_model(
        [
            helper.make_node("Identity", ["w"], ["w_computed"], name="identity"),
            conv("image", "a"),
            conv("a", "logits", "w_computed"),
        ],
        {"w": W},
    )
    assert "initializer" in place(Graph(model), ORT).kept_float["conv_logits"]


def test_place_graph_without_convolution_is_refused() -> None:
    model = make_model([helper.make_node("Relu", ["image"], ["logits"], name="r")], {})
    with pytest.raises(GraphError, match="no convolution"):
        place(Graph(model), ORT)


def test_place_quantized_graph_is_refused() -> None:
    model = make_model(
        [
            helper.make_node("QuantizeLinear", ["image", "s", "z"], ["q"], name="q"),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], name="d"),
            conv("d", "logits"),
        ],
        {"w": W, "s": np.float32(1), "z": np.uint8(0)},
    )
    with pytest.raises(GraphError, match="quantized already"):
        place(Graph(model), ORT)


def test_place_old_opset_is_refused() -> None:
    model = make_model([conv("image", "logits")], {"w": W}, opset=12)
    with pytest.raises(GraphError, match=r"opset is 12.*13"):
        place(Graph(model), ORT)


@pytest.mark.parametrize("shape", [(1, 3, "h", "w"), (2, 3, 8, 8), (1, 1, 8, 8)])
def test_input_size_of_another_input_is_refused(shape: tuple[int | str, ...]) -> None:
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Relu", ["image"], ["logits"])],
            "graph",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        )
    )
    with pytest.raises(GraphError, match="1x3xHxW"):
        _ = Graph(model).input_size


def test_with_node_names_fills_missing_and_repeated_names_in_a_copy() -> None:
    model = make_model([conv("image", "a"), conv("a", "b"), conv("b", "logits")], {"w": W})
    for node, name in zip(model.graph.node, ["same", "same", ""], strict=True):
        node.name = name
    named = with_node_names(model)
    assert [n.name for n in named.graph.node] == ["same", "Conv_1", "Conv_2"]
    assert [n.name for n in model.graph.node] == ["same", "same", ""]


def test_place_every_profile_observes_what_the_default_one_does() -> None:
    graph = Graph(refine_model())
    everything = set(place(graph, ORT).observed)
    for profile in PROFILES.values():
        names = place(graph, profile).nodes
        for exclude in ([], *([name] for name in names), names[1:]):
            assert set(place(graph, profile, exclude).observed) <= everything


def test_place_excluded_node_stays_float_and_says_why() -> None:
    placement = place(Graph(refine_model()), ORT, {"conv2", "add_linear"})
    assert placement.kept_float == {
        "conv2": "the caller keeps it in float",
        "clip": "the Conv before it stays float",
        "add_linear": "the caller keeps it in float",
    }
    assert placement.reads["conv2"] == {"p1"}  # 8 bits are all that the pooling gives
    assert placement.reads["depthwise"] == {"k2"}
    assert placement.reads["add_linear"] == {"r4", "u3"}


def test_place_float_node_takes_the_float_result_of_a_float_node() -> None:
    model = make_model(
        [
            conv("image", "a"),
            conv("a", "b"),
            conv("a", "c"),
            helper.make_node("Add", ["b", "c"], ["logits"], name="add"),
        ],
        {"w": W},
    )
    placement = place(Graph(model), ORT, {"conv_a", "conv_b"})
    assert placement.reads["conv_b"] == frozenset()
    assert placement.reads["conv_c"] == {"a"}


@pytest.mark.parametrize("name", ["relu1", "nothing", ""])
def test_place_name_that_cannot_be_excluded_is_refused(name: str) -> None:
    with pytest.raises(GraphError, match=f"{name!r} cannot be kept in float"):
        place(Graph(refine_model()), ORT, {name})


def test_place_tensorrt_quantizes_inputs_only_and_nothing_before_resize() -> None:
    placement = place(Graph(refine_model()), TENSORRT)
    assert placement.scale_of == {
        "image": "image",
        "r1": "r1",
        "p1": "r1",
        "k2": "k2",
        "u3": "c3",
        "r4": "r4",
        "s5": "s5",
    }
    assert placement.kept_float == {"resize": "Resize computes in float on target tensorrt"}
    assert placement.reads["add"] == {"u3", "r1"}
    assert not placement.outputs


def test_place_tensorrt_add_takes_the_residual_branch_only() -> None:
    reads = place(Graph(residual_model()), TENSORRT).reads
    assert reads["identity_add"] == {"a"}
    assert reads["projection_add"] == {"shortcut"}  # d is at the end of the longer path
    assert reads["plain_add"] == {"t", "b"}  # b has another consumer: nothing to fuse


def test_fused_branch_of_an_add_without_its_own_convolution_is_none() -> None:
    graph = Graph(residual_model())
    adds = {n.name: fused_branch(graph, n) for n in graph.model.graph.node if n.op_type == "Add"}
    assert adds == {"identity_add": "c", "projection_add": "d", "plain_add": None}
