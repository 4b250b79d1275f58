"""A tiny network and its result: what a toolchain must take and give, to be called working."""

import io
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 13, 8  # old enough for every toolchain
SHAPE, CHANNELS = (1, 3, 32, 32), 8


def write_tiny(folder: Path) -> None:
    """Write ``tiny.onnx``, float: a 3x3 convolution with Relu; ``image.npy``; ``expected.npy``."""
    model = tiny_network()
    image = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    arrays = {"image": image, "expected": session.run(None, {"image": image})[0]}
    (folder / "tiny.onnx").write_bytes(model.SerializeToString(deterministic=True))
    for name, array in arrays.items():
        stream = io.BytesIO()
        np.save(stream, array)
        (folder / f"{name}.npy").write_bytes(stream.getvalue())


def tiny_network() -> onnx.ModelProto:
    """Return the network, float (1, 3, 32, 32) → (1, 8, 32, 32)."""
    weight = np.random.default_rng(1).standard_normal((CHANNELS, 3, 3, 3), dtype=np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "weight"], ["sum"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["sum"], ["result"], name="relu"),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT, (1, CHANNELS, *SHAPE[2:]))],
        [numpy_helper.from_array(weight, "weight")],
    )
    opset = helper.make_opsetid("", OPSET)
    return helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
