"""Whether a runtime's 8-bit kernels saturate on this processor, found by asking them.

x86 without VNNI multiplies bytes by VPMADDUBSW, which adds two products u8 * s8 in 16 bits: a sum
beyond 32,767 stays there, and nothing tells (onnxruntime issues 5849 and 14642). Which kernels run
depends on processor, runtime and options; a list of processor flags is no proof, and in an emulator
not even right. So a tiny convolution runs, whose pairs of products, 2 * 255 * 127, do not fit.
"""

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from deploy.calibration.preprocess import Float32Array

SHAPE = (1, 64, 16, 16)  # of image and result: wide enough for the kernels of real networks
STEPS = 64  # of the result's scale, that the result is worth, or nearly so
OPSET, IR_VERSION = 13, 8
SATURATING = np.uint8, np.int8  # activations: some kernels shift signed ones into the unsigned

Run = Callable[[onnx.ModelProto, Float32Array], Float32Array]  # (graph, image) -> result


def saturates(run: Run) -> bool:
    """Say whether what ``run`` makes of a graph with an 8-bit convolution is wrong."""
    return any(_is_wrong(run, activation) for activation in SATURATING)


def _is_wrong(run: Run, activation: type[np.uint8] | type[np.int8]) -> bool:
    highest = int(np.iinfo(activation).max)
    total = SHAPE[1] * 127 * highest
    # Powers of two are exact in every step: the result is known to the last bit.
    scale = np.float32(2.0 ** np.ceil(np.log2(total / STEPS)))
    image = np.full(SHAPE, highest, np.float32)
    expected = np.rint(np.float32(total) / scale) * scale
    return not bool((run(_convolution(activation, scale), image) == expected).all())


def _convolution(
    activation: type[np.uint8] | type[np.int8], result_scale: np.float32
) -> onnx.ModelProto:
    """Return the QDQ graph of one 1x1 convolution, all weights 127, float in and out."""
    channels = SHAPE[1]
    constants = {
        "scale": np.float32(1),
        "zero": activation(0),
        "weight": np.full((channels, channels, 1, 1), 127, np.int8),
        "weight_scale": np.ones(channels, np.float32),
        "weight_zero": np.zeros(channels, np.int8),
        "result_scale": result_scale,
    }
    node = helper.make_node
    nodes = [
        node("QuantizeLinear", ["image", "scale", "zero"], ["image_q"]),
        node("DequantizeLinear", ["image_q", "scale", "zero"], ["image_dq"]),
        node("DequantizeLinear", ["weight", "weight_scale", "weight_zero"], ["w"], axis=0),
        node("Conv", ["image_dq", "w"], ["sum"]),
        node("QuantizeLinear", ["sum", "result_scale", "zero"], ["result_q"]),
        node("DequantizeLinear", ["result_q", "result_scale", "zero"], ["result"]),
    ]
    graph = helper.make_graph(
        nodes,
        "probe",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT, SHAPE)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opset = helper.make_opsetid("", OPSET)
    return helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
