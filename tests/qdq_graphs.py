"""Small QDQ graphs of RefineNet's operators, right and wrong, node by node."""

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

CHANNELS, SIDE = 4, 16
SCALE = {"uint8": 0.05, "int8": 0.05, "uint16": 2e-4, "int16": 2e-4}  # of the image
MIDDLE = {"uint8": 128, "int8": 3, "uint16": 32768, "int16": 0}


class QdqGraph:
    """A graph from ``image``, (1, 4, 16, 16), to ``logits``, built node by node."""

    def __init__(self, random: np.random.Generator, dtype: str = "uint8") -> None:
        self.random, self.dtype = random, dtype
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, NDArray[np.generic]] = {}

    def const(self, value: object, dtype: object = np.float32) -> str:
        name = f"k{len(self.constants)}"
        self.constants[name] = np.asarray(value, dtype)
        return name

    def add(
        self, op_type: str, inputs: Sequence[str], out: str | None = None, **given: object
    ) -> str:
        out = out or f"t{len(self.nodes)}"
        name = f"{op_type.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [out], name=name, **given))
        return out

    def affine(self, scale: object, zero_point: int | None, dtype: str | None) -> tuple[str, str]:
        dtype = dtype or self.dtype
        middle = MIDDLE.get(dtype, 0) if zero_point is None else zero_point
        return self.const(scale), self.const(np.full(np.shape(scale), middle), dtype)

    def quantize(
        self, x: str, scale: float, zero_point: int | None = None, dtype: str | None = None
    ) -> str:
        return self.add("QuantizeLinear", [x, *self.affine(scale, zero_point, dtype)])

    def dequantize(
        self,
        x: str,
        scale: object,
        zero_point: int | None = None,
        dtype: str | None = None,
        *,
        out: str | None = None,
        axis: int = 0,
    ) -> str:
        given = {"axis": axis} if np.ndim(scale) else {}
        return self.add(
            "DequantizeLinear", [x, *self.affine(scale, zero_point, dtype)], out, **given
        )

    def qdq(
        self,
        x: str,
        scale: float,
        zero_point: int | None = None,
        dtype: str | None = None,
        out: str | None = None,
    ) -> str:
        q = self.quantize(x, scale, zero_point, dtype)
        return self.dequantize(q, scale, zero_point, dtype, out=out)

    def image(self) -> str:
        return self.qdq("image", SCALE[self.dtype])

    def finish(self, x: str, scale: float = 0.02, dtype: str | None = None) -> None:
        if "16" in (dtype or self.dtype):
            scale /= 256
        self.qdq(x, scale, None, dtype, out="logits")

    def conv(
        self,
        x: str,
        *,
        scale: float | None = None,
        weight: str = "int8",
        per_channel: bool = True,
        zero_point: int = 0,
        bias: str = "int32",
        kernel: int = 3,
        stride: int = 1,
        depthwise: bool = False,
        out: str | None = None,
    ) -> str:
        """Append a convolution; ``scale`` is its input's."""
        scale = SCALE[self.dtype] if scale is None else scale
        shape = (CHANNELS, 1 if depthwise else CHANNELS, kernel, kernel)
        steps = 0.25 / np.prod(shape[1:]) ** 0.5 / 64
        scales = steps * (1 + 0.1 * np.arange(CHANNELS)) if per_channel else np.float64(steps)
        limits = np.iinfo(weight)
        q = self.const(self.random.integers(limits.min + 1, limits.max, shape), weight)
        inputs = [x, self.dequantize(q, scales, zero_point, weight)]
        if bias != "none":
            inputs.append(self.bias(bias, scale * scales))
        return self.add(
            "Conv",
            inputs,
            out,
            pads=[kernel // 2] * 4,
            strides=[stride] * 2,
            group=CHANNELS if depthwise else 1,
        )

    def bias(self, kind: str, scale: NDArray[np.float64]) -> str:
        values = self.random.standard_normal(CHANNELS)
        if kind == "float":
            return self.const(values)
        if kind == "one-scale":
            scale = np.float64(1e-4)
        elif kind == "other-scale":
            scale = scale * 1.37
        elif kind == "int8":
            scale = np.float64(1 / 32)
        dtype = "int8" if kind == "int8" else "int32"
        return self.dequantize(self.const(np.rint(values / scale), dtype), scale, 0, dtype)

    def between(self, op_type: str, x: str) -> str:
        """Append one of RefineNet's operators that is no convolution."""
        if op_type == "MaxPool":
            return self.add(op_type, [x], kernel_shape=[5, 5], pads=[2] * 4)
        if op_type == "AveragePool":
            return self.add(op_type, [x], kernel_shape=[3, 3], pads=[1] * 4)
        if op_type == "Resize":
            sizes = self.const([1, CHANNELS, 31, 25], np.int64)
            return self.add(op_type, [x, "", "", sizes], mode="linear")
        if op_type == "Align":
            sizes = self.const([1, CHANNELS, 31, 25], np.int64)
            mode = {"coordinate_transformation_mode": "align_corners"}
            return self.add("Resize", [x, "", "", sizes], mode="linear", **mode)
        if op_type == "Concat":
            return self.add(op_type, [x, x], axis=2)
        if op_type == "Add":
            return self.add(op_type, [x, x])
        if op_type == "Pad":
            # Without a value, HTP's emulator pads int8 of zero point -128 with 256 steps.
            pads = self.const([0, 0, 1, 1, 0, 0, 1, 1], np.int64)
            return self.add(op_type, [x, pads, self.const(0)])
        if op_type == "Slice":
            return self.add(op_type, [x, *(self.const([k], np.int64) for k in (1, 9, 2))])
        return self.add(op_type, [x])

    def model(self, height: int | str = SIDE) -> onnx.ModelProto:
        """Return the checked graph."""
        shape = [1, CHANNELS, height, SIDE]
        graph = helper.make_graph(
            self.nodes,
            "graph",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        opset = [helper.make_opsetid("", 21)]
        model = onnx.shape_inference.infer_shapes(
            helper.make_model(graph, opset_imports=opset, ir_version=10)
        )
        onnx.checker.check_model(model)
        return model
