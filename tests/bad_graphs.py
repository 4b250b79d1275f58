"""Broken, odd and hostile ONNX files, by what is wrong with them."""

from collections.abc import Callable

import numpy as np
import onnx
from bad_inputs import SECRET, cut, flip
from graphs import make_model, quantized, refine_model
from onnx import TensorProto, helper, numpy_helper

from deploy.graph.metadata import set_metadata

Change = Callable[[onnx.ModelProto], object]
Content = Callable[[], bytes]
node = helper.make_node


def good() -> bytes:
    return refine_model(classes=21).SerializeToString()


def edited(change: Change) -> Content:
    def make() -> bytes:
        model = refine_model(classes=21)
        change(model)
        return model.SerializeToString()

    return make


def weight(model: onnx.ModelProto) -> onnx.TensorProto:
    return next(t for t in model.graph.initializer if t.name == "w1")


def outside(location: str, *, length: int = 864) -> Content:
    """Return a graph whose first weight is said to be in another file."""

    def change(model: onnx.ModelProto) -> None:
        tensor = weight(model)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, "offset": "0", "length": str(length)}.items():
            tensor.external_data.add(key=key, value=value)

    return edited(change)


def outside_of_attribute(model: onnx.ModelProto) -> None:
    """Put the external data where only a Constant node has it."""
    tensor = weight(model)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret.bin")
    model.graph.node.insert(0, node("Constant", [], ["w1"], value=tensor))
    model.graph.initializer.remove(tensor)


def fill(value: float) -> Change:
    def change(model: onnx.ModelProto) -> None:
        values = numpy_helper.to_array(weight(model)).copy()
        values[1, 1, 1, 1] = value
        weight(model).CopyFrom(numpy_helper.from_array(values, "w1"))

    return change


def claim(*dims: int) -> Change:
    def change(model: onnx.ModelProto) -> None:
        weight(model).dims[:] = dims

    return change


def append(*nodes: onnx.NodeProto) -> Change:
    return lambda model: model.graph.node.extend(nodes)


def with_branch(model: onnx.ModelProto) -> None:
    """Let the logits pass through an If whose branches use a weight of the graph."""
    model.graph.node[-1].output[0] = "before"
    branches = {
        f"{side}_branch": helper.make_graph(
            [node("Conv", ["before", "mix"], [f"{side}_out"])],
            side,
            [],
            [helper.make_tensor_value_info(f"{side}_out", TensorProto.FLOAT, None)],
        )
        for side in ("then", "else")
    }
    mix = np.eye(21, dtype=np.float32)[:, :, None, None]
    model.graph.initializer.extend(
        [numpy_helper.from_array(mix, "mix"), numpy_helper.from_array(np.array(True), "yes")]
    )
    model.graph.node.append(node("If", ["yes"], ["logits"], name="if", **branches))


def with_loop(model: onnx.ModelProto) -> None:
    """Let the logits pass through a Loop that adds them to themselves."""
    model.graph.node[-1].output[0] = "before"
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [node("Identity", ["go"], ["go_on"]), node("Add", ["x", "x"], ["y"])],
        "body",
        [
            value("i", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("x", TensorProto.FLOAT, [1, 21, 16, 16]),
        ],
        [
            value("go_on", TensorProto.BOOL, []),
            value("y", TensorProto.FLOAT, [1, 21, 16, 16]),
        ],
    )
    constants = {"two": np.array(2), "yes": np.array(True)}
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in constants.items())
    loop = node("Loop", ["two", "yes", "before"], ["logits"], name="loop", body=body)
    model.graph.node.append(loop)


def second_output(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("s5", TensorProto.FLOAT, None))


def second_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(
        helper.make_tensor_value_info("other", TensorProto.FLOAT, [1, 8, 16, 16])
    )
    model.graph.node[9].input[1] = "other"


def input_of(kind: int, *dims: int | str) -> Content:
    """Return a graph with another input, cast to what the first convolution takes."""

    def make() -> bytes:
        model = refine_model(classes=21)
        model.graph.input[0].CopyFrom(helper.make_tensor_value_info("image", kind, dims))
        del model.graph.value_info[:]
        if kind != TensorProto.FLOAT:
            model.graph.node[0].input[0] = "floats"
            model.graph.node.insert(0, node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT))
        return model.SerializeToString()

    return make


def cycle(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "s5"


def opset(version: int) -> Change:
    def change(model: onnx.ModelProto) -> None:
        model.opset_import[0].version = version

    return change


def in_8_bits() -> onnx.ModelProto:
    image = np.random.default_rng(0).standard_normal((1, 3, 16, 16), dtype=np.float32)
    return quantized(refine_model(classes=21), [image])


def integer_operators() -> bytes:
    """Return a graph with a QLinearConv, as other quantizers write."""
    constants = {
        "s": np.float32(0.05),
        "z": np.uint8(128),
        "w": np.ones((21, 3, 1, 1), np.int8),
        "ws": np.float32(0.01),
        "wz": np.int8(0),
    }
    nodes = [
        node("QuantizeLinear", ["image", "s", "z"], ["q"]),
        node("QLinearConv", ["q", "s", "z", "w", "ws", "wz", "s", "z"], ["c"]),
        node("DequantizeLinear", ["c", "s", "z"], ["logits"]),
    ]
    return make_model(nodes, constants).SerializeToString()


def fails_when_run() -> bytes:
    """Return a graph whose shape depends on its values, and never fits."""
    constants = {
        "w": np.ones((21, 3, 1, 1), np.float32),
        "axes": np.array([0, 1, 2, 3]),
        "many": np.array([1000.0], np.float32),
    }
    nodes = [
        node("Conv", ["image", "w"], ["c"]),
        node("ReduceMean", ["c", "axes"], ["m"], keepdims=0),
        node("Mul", ["m", "many"], ["n"]),
        node("Cast", ["n"], ["k"], to=TensorProto.INT64),
        node("Concat", ["k", "k", "k", "k"], ["shape"], axis=0),
        node("Reshape", ["c", "shape"], ["logits"]),
    ]
    return make_model(nodes, constants).SerializeToString()


def conv_of_constants_only() -> bytes:
    """Return a graph without initializers: its weight comes from a Constant node."""
    value = numpy_helper.from_array(np.ones((21, 3, 1, 1), np.float32))
    nodes = [
        node("Constant", [], ["w"], value=value),
        node("Conv", ["image", "w"], ["logits"]),
    ]
    return make_model(nodes, {}).SerializeToString()


def without_convolution() -> bytes:
    return make_model([node("Relu", ["image"], ["logits"])], {}).SerializeToString()


def metadata(**entries: str) -> Content:
    return edited(lambda model: set_metadata(model, entries))


# Refused by everything that reads a graph.
UNREADABLE: dict[str, Content] = {
    "empty": lambda: b"",
    "text": lambda: b"the graph is in the other file\n",
    "html": lambda: b"<!DOCTYPE html><title>404 Not Found</title>",
    "zeros": lambda: bytes(1000),
    **{f"cut-{s}": (lambda s=s: cut(good(), s)) for s in (0.01, 0.3, 0.7, 0.999)},
    "opset-0": edited(opset(0)),
    "opset-999": edited(opset(999)),
    "no-opset": edited(lambda m: m.ClearField("opset_import")),
    "ir-999": edited(lambda m: setattr(m, "ir_version", 999)),
    "unknown-operator": edited(append(node("Refine", ["logits"], ["x"]))),
    "outside-missing": outside("weights.bin"),
    "outside-parent": outside("../secret.bin"),
    "outside-beside": outside("secret.bin", length=len(SECRET)),
    "outside-absolute": outside("/etc/passwd"),
    "outside-of-attribute": edited(outside_of_attribute),
    "cycle": edited(cycle),
    "output-twice": edited(append(node("Relu", ["s5"], ["s4"]))),
    "nobody-makes-it": edited(append(node("Relu", ["ghost"], ["x"]))),
    "no-nodes": edited(lambda m: m.graph.ClearField("node")),
    "no-graph": edited(lambda m: m.ClearField("graph")),
    "nan": edited(fill(float("nan"))),
    "infinite": edited(fill(float("inf"))),
    "claims-2-gb": edited(claim(2**29, 1, 1, 1)),
    "claims-everything": edited(claim(2**62, 2**62, 1, 1)),
    "negative-shape": edited(claim(8, -3, 3, 3)),
    "too-few-values": edited(claim(8, 4, 3, 3)),
    "no-type": edited(lambda m: setattr(weight(m), "data_type", 0)),
    "unknown-type": edited(lambda m: setattr(weight(m), "data_type", 99)),
}
# Valid ONNX that is no network from one image to logits of a fixed size.
UNFIT: dict[str, Content] = {
    "unknown-domain": edited(
        lambda m: (
            m.opset_import.add(domain="org.nobody", version=1),
            m.graph.node.extend([node("Refine", ["s5"], ["x"], domain="org.nobody")]),
            m.graph.node[-2].input.__setitem__(0, "s5"),
        )
    ),
    "two-inputs": edited(second_input),
    "two-outputs": edited(second_output),
    "no-output": edited(lambda m: m.graph.ClearField("output")),
    "dynamic-size": input_of(TensorProto.FLOAT, 1, 3, "height", "width"),
    "dynamic-batch": input_of(TensorProto.FLOAT, "batch", 3, 16, 16),
    "batch-of-2": input_of(TensorProto.FLOAT, 2, 3, 16, 16),
    "4-channels": input_of(TensorProto.FLOAT, 1, 4, 16, 16),
    "channels-last": input_of(TensorProto.FLOAT, 1, 16, 16, 3),
    "rank-3": input_of(TensorProto.FLOAT, 3, 16, 16),
    "bytes-in": input_of(TensorProto.UINT8, 1, 3, 16, 16),
    "doubles-in": input_of(TensorProto.DOUBLE, 1, 3, 16, 16),
    "fails-when-run": fails_when_run,
    "wrong-bias": edited(
        lambda m: m.graph.initializer[1].CopyFrom(
            numpy_helper.from_array(np.zeros(5, np.float32), "b1")
        )
    ),
    "channels-do-not-fit": edited(
        lambda m: weight(m).CopyFrom(
            numpy_helper.from_array(np.ones((8, 5, 3, 3), np.float32), "w1")
        )
    ),
    "unknown-fit": metadata(fit="stretch", weights_sha256="ab" * 32),  # as ours has
}
# Networks that run, and cannot be quantized.
NOT_TO_QUANTIZE: dict[str, Content] = {
    "opset-11": edited(opset(12)),
    "quantized": lambda: in_8_bits().SerializeToString(),
    "integer-operators": integer_operators,
    "no-convolution": without_convolution,
    "branch": edited(with_branch),
    "loop": edited(with_loop),
    "halves-in": input_of(TensorProto.FLOAT16, 1, 3, 16, 16),
}
# Networks that run, and cannot be scored on VOC's classes or with these metadata.
NOT_TO_VALIDATE: dict[str, Content] = {
    "4-classes": lambda: refine_model(classes=4).SerializeToString(),
    "unknown-variant": metadata(variant="rf-lw51"),
    "images-no-json": metadata(calibration_images="[1, 2"),
    "images-no-list": metadata(calibration_images='{"a": 1}'),
    "images-no-texts": metadata(calibration_images="[[1], null]"),
}
# The first 1,500 bytes or so are nodes and attributes, the rest is weights and shapes.
FLIPPED: dict[str, Content] = {
    **{
        f"node-{i}": (lambda i=i: flip(good()[:1500], i / 60, i % 8) + good()[1500:])
        for i in range(60)
    },
    **{f"{i}": (lambda i=i: flip(good(), i / 20 + 0.001, i % 8)) for i in range(20)},
}
