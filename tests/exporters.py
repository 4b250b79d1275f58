"""Small segmentation networks, 1x3x64x64 to 21 logits, as exporters other than ours write them."""

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Nodes = list[onnx.NodeProto]
Constants = dict[str, NDArray[np.generic]]
node = helper.make_node


def base() -> tuple[Nodes, Constants]:
    """Return conv-relu, conv-clip of stride 2, conv, sum, resize and a classifier."""
    r = np.random.default_rng(7)

    def weight(*shape: int) -> NDArray[np.float32]:
        return (r.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)

    def bias(size: int) -> NDArray[np.float32]:
        return (0.1 * r.standard_normal(size)).astype(np.float32)

    constants: Constants = {
        "w1": weight(16, 3, 3, 3),
        "b1": bias(16),
        "w2": weight(32, 16, 3, 3),
        "b2": bias(32),
        "w3": weight(32, 32, 3, 3),
        "b3": bias(32),
        "wh": weight(21, 32, 1, 1),
        "bh": bias(21),
        "zero": np.array(0, np.float32),
        "six": np.array(6, np.float32),
        "scales": np.array([1, 1, 2, 2], np.float32),
    }
    nodes = [
        node("Conv", ["image", "w1", "b1"], ["c1"], name="conv1", pads=[1] * 4),
        node("Relu", ["c1"], ["r1"], name="relu1"),
        node("Conv", ["r1", "w2", "b2"], ["c2"], name="conv2", pads=[1] * 4, strides=[2, 2]),
        node("Clip", ["c2", "zero", "six"], ["r2"], name="clip2"),
        node("Conv", ["r2", "w3", "b3"], ["c3"], name="conv3", pads=[1] * 4),
        node("Add", ["c3", "r2"], ["a"], name="add"),
        node("Resize", ["a", "", "scales"], ["u"], name="up", mode="linear"),
        node("Conv", ["u", "wh", "bh"], ["logits"], name="head"),
    ]
    return nodes, constants


def build(
    nodes: Nodes,
    constants: Mapping[str, NDArray[np.generic]],
    *,
    output: int = TensorProto.FLOAT,
    opset: int = 17,
    ir_version: int = 8,
    listed: bool = False,
) -> onnx.ModelProto:
    """Return a model; ``listed``: its initializers are among the inputs, as old exporters do."""
    tensors = [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()]
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 64, 64])]
    if listed:
        inputs += [
            helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in tensors
        ]
    outputs = [helper.make_tensor_value_info("logits", output, ["n", "c", "h", "w"])]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, tensors)
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)
    onnx.checker.check_model(model)
    return model


def in_constant_nodes() -> onnx.ModelProto:
    """Return weights, bounds and scales in Constant nodes."""
    nodes, constants = base()
    made = [
        node("Constant", [], [name], name=f"const_{name}", value=numpy_helper.from_array(value))
        for name, value in constants.items()
    ]
    return build([*made, *nodes], {})


def behind_identity() -> onnx.ModelProto:
    """Return a weight behind two Identity nodes, and an activation behind one."""
    nodes, constants = base()
    nodes[0:0] = [node("Identity", ["w2"], ["tied"]), node("Identity", ["tied"], ["tied_again"])]
    nodes[4].input[1] = "tied_again"
    nodes.insert(4, node("Identity", ["r1"], ["r1_same"]))
    nodes[5].input[0] = "r1_same"
    return build(nodes, constants)


def listed_inputs() -> onnx.ModelProto:
    """Return initializers among the inputs, IR 3."""
    return build(*base(), listed=True, opset=13, ir_version=3)


def auto_padded(rule: str) -> onnx.ModelProto:
    """Return convolutions whose paddings a rule says."""
    nodes, constants = base()
    nodes[0] = node("Conv", ["image", "w1", "b1"], ["c1"], name="conv1", auto_pad=rule)
    strides = {"strides": [2, 2], "auto_pad": rule}
    nodes[2] = node("Conv", ["r1", "w2", "b2"], ["c2"], name="conv2", **strides)
    return build(nodes, constants)


def cubic() -> onnx.ModelProto:
    """Return a resizing whose results go beyond its input's."""
    nodes, constants = base()
    nodes[4:7] = [node("Resize", ["r2", "", "scales"], ["u"], name="up", mode="cubic")]
    return build(nodes, constants)


def renamed(table: Mapping[str, str]) -> onnx.ModelProto:
    """Return the base with other names."""
    nodes, constants = base()
    for each in nodes:
        each.input[:] = [table.get(name, name) for name in each.input]
        each.output[:] = [table.get(name, name) for name in each.output]
    return build(nodes, {table.get(name, name): value for name, value in constants.items()})


def hard_swish() -> onnx.ModelProto:
    """Return a hard-swish in its parts."""
    nodes, constants = base()
    constants |= {"three": np.array(3, np.float32), "sixth": np.array(1 / 6, np.float32)}
    nodes[1:2] = [
        node("Add", ["c1", "three"], ["shifted"], name="hs_add"),
        node("Clip", ["shifted", "zero", "six"], ["clipped"], name="hs_clip"),
        node("Mul", ["c1", "clipped"], ["product"], name="hs_mul"),
        node("Mul", ["product", "sixth"], ["r1"], name="hs_scale"),
    ]
    return build(nodes, constants)


def clipped(low: float | None, high: float | None) -> onnx.ModelProto:
    """Return a Clip of other bounds."""
    nodes, constants = base()
    bounds = {"low": low, "high": high}
    constants |= {k: np.array(v, np.float32) for k, v in bounds.items() if v is not None}
    inputs = ["c2", *("" if value is None else name for name, value in bounds.items())]
    nodes[3] = node("Clip", inputs, ["r2"], name="clip2")
    return build(nodes, constants)


def twice() -> onnx.ModelProto:
    """Return the sum of a tensor with itself."""
    nodes, constants = base()
    nodes[5] = node("Add", ["c3", "c3"], ["a"], name="twice")
    return build(nodes, constants)


def bias_as_sum(shape: tuple[int, ...], *, own: bool) -> onnx.ModelProto:
    """Return a bias that a node of its own adds, beside the convolution's or alone."""
    nodes, constants = base()
    constants["added"] = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    inputs = ["r1", "w2", *(["b2"] if own else [])]
    nodes[2:3] = [
        node("Conv", inputs, ["raw"], name="conv2", pads=[1] * 4, strides=[2, 2]),
        node("Add", ["raw", "added"], ["c2"], name="bias2"),
    ]
    if not own:
        constants.pop("b2")
    return build(nodes, constants)


def overflowing() -> onnx.ModelProto:
    """Return features beyond the range of a half in tensors that 8 bits do not scale."""
    nodes, constants = base()
    constants |= {"up_by": np.array(3e4, np.float32), "down_by": np.array(1 / 3e4, np.float32)}
    nodes[5:6] = [
        node("Mul", ["c3", "up_by"], ["big"], name="mul_big"),
        node("Sigmoid", ["r2"], ["gate"], name="gate"),
        node("Mul", ["big", "gate"], ["gated"], name="mul_gated"),
        node("Mul", ["gated", "down_by"], ["back"], name="mul_back"),
        node("Add", ["back", "r2"], ["a"], name="add"),
    ]
    return build(nodes, constants)


def normalized(epsilon: float = 1e-6, factor: float = 60) -> onnx.ModelProto:
    """Return features divided by their norm: squares overflow, and a tiny epsilon underflows."""
    nodes, constants = base()
    constants |= {"factor": np.array(factor, np.float32), "axes": np.array([1])}
    constants["epsilon"] = np.array(epsilon, np.float32)
    nodes[5:6] = [
        node("Mul", ["c3", "factor"], ["f"], name="features"),
        node("Mul", ["f", "f"], ["square"], name="square"),
        node("ReduceSum", ["square", "axes"], ["total"], name="total", keepdims=1),
        node("Add", ["total", "epsilon"], ["positive"], name="plus_epsilon"),
        node("Sqrt", ["positive"], ["root"], name="root"),
        node("Div", ["f", "root"], ["a"], name="normalize"),
    ]
    return build(nodes, constants)


def labelled() -> onnx.ModelProto:
    """Return a graph that ends in labels."""
    nodes, constants = base()
    nodes[-1].output[0] = "scores"
    nodes.append(node("ArgMax", ["scores"], ["logits"], name="labels", axis=1, keepdims=1))
    return build(nodes, constants, output=TensorProto.INT64)


ODD_NAMES = (
    {"r1": "conv1", "w2": "conv1_scale", "b2": "conv1_zero_point"},
    {"w1": "w", "w2": "w_float16", "r1": "x", "r2": "x_float16"},
    {"r1": "x", "r2": "x_quantized", "a": "x_dequantized", "c3": "x_float", "u": "x_scale"},
    {"r1": "a b/c:0", "w1": "conv1.weight_quantized", "r2": "größe//max", "u": "logits_half"},
)
# Each is as good in 8 bits and in half as the same network written our way.
ACCEPTED: Mapping[str, Callable[[], onnx.ModelProto]] = {
    "base": lambda: build(*base()),
    "constant-nodes": in_constant_nodes,
    "identity": behind_identity,
    "listed-inputs": listed_inputs,
    **{rule: lambda rule=rule: auto_padded(rule) for rule in ("SAME_UPPER", "SAME_LOWER")},
    "cubic": cubic,
    **{f"names-{i}": lambda table=table: renamed(table) for i, table in enumerate(ODD_NAMES)},
    "hard-swish": hard_swish,
    "clip-from-minus-one": lambda: clipped(-1, 6),
    "clip-from-one": lambda: clipped(1, 6),
    "clip-below": lambda: clipped(None, 6),
    "clip-above": lambda: clipped(0, None),
    "sum-of-one-tensor": twice,
    "bias-as-sum": lambda: bias_as_sum((1, 32, 1, 1), own=False),
    "bias-as-sum-beside": lambda: bias_as_sum((32, 1, 1), own=True),
    "overflowing": overflowing,
    "normalized": normalized,
}
