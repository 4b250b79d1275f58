"""An ONNX graph in LiteRT's form, translated operator by operator, integers bit for bit.

Float graphs, those in half precision (weights are stored as halves), and QDQ graphs with int8
activations: an operator between DequantizeLinear and one QuantizeLinear becomes LiteRT's 8-bit one,
with the very scales, zero points, weights and biases; what computes in float stays float. Images
are (1, H, W, C) there. What LiteRT cannot say is refused.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from deploy.errors import GraphError
from deploy.graph.activations import activation_bounds, fused_activation
from deploy.graph.canonical import canonical
from deploy.graph.graph import attributes, with_node_names
from deploy.graph.qdq import DEQUANTIZE, QUANTIZE, Affine, QdqGraph
from deploy.runtimes.litert_files import Operator, Quantization, TfLiteModel
from deploy.runtimes.litert_tape import FLOAT, INT8, Borders, Tape, cannot
from deploy.runtimes.litert_windows import SAME, Pads, find_window

# Of the schema: ActivationFunctionType.
NONE, RELU, RELU6 = 0, 1, 3
ACTIVATIONS = {(0.0, math.inf): (RELU, "RELU"), (0.0, 6.0): (RELU6, "RELU6")}
ONE_SCALE = ("AveragePool", "Concat", "MaxPool", "Resize")  # what they take has that of the result
# Of ONNX's ways to map pixels: alignCorners, halfPixelCenters.
LINEAR_MODES = {
    b"align_corners": (True, False),
    b"half_pixel": (False, True),
    b"pytorch_half_pixel": (False, True),
    b"asymmetric": (False, False),
}


def translate(model: onnx.ModelProto, borders: Borders = Borders.FLOAT) -> TfLiteModel:
    """Return a graph in LiteRT's form.

    Raises:
        GraphError: it has an operator, or an attribute, that is not translated; or uint8 borders
            are wanted of one that begins or ends in float.
    """
    return _Translation(QdqGraph(with_node_names(canonical(model))), borders).run()


@dataclass
class _Translation(Tape):
    """The work of one translation."""

    done: set[str] = field(default_factory=set)  # activations that are part of the node before

    def run(self) -> TfLiteModel:
        does: dict[str, Callable[[onnx.NodeProto], None]] = {
            QUANTIZE: self.quantize,
            DEQUANTIZE: self.dequantize,
            "Conv": self.conv,
            "Add": self.add,
            "Relu": self.activation,
            "Clip": self.activation,
            "AveragePool": self.pool,
            "Concat": self.concat,
            "MaxPool": self.pool,
            "Resize": self.resize,
            "Max": self.held,
            "Cast": self.passive,
            "Identity": self.passive,
        }
        graph = self.graph
        if len(graph.model.graph.output) != 1:
            raise GraphError(
                f"the graph has {len(graph.model.graph.output)} outputs: the logits are expected"
            )
        given = self.begin()
        for node in graph.model.graph.node:
            if node.name in self.done:
                continue
            if node.op_type not in does:
                raise cannot(node, "LiteRT's form of it is not written here")
            does[node.op_type](node)
        result = self.end(graph.model.graph.output[0].name)
        return TfLiteModel(
            tensors=self.tensors, operators=self.operators, input=given, output=result
        )

    def quantize(self, node: onnx.NodeProto) -> None:
        """Translate a QuantizeLinear that is not part of what comes before it."""
        name = node.output[0]
        if name not in self.integers:
            source = self.float_of(node.input[0])
            self.integers[name] = self.converted(source, name, self.affine(node))

    def dequantize(self, node: onnx.NodeProto) -> None:
        """Look at a DequantizeLinear; what needs floats asks for them (``float_of``)."""
        if node.input[0] not in self.graph.constants and node.input[0] not in self.integers:
            raise cannot(node, "it takes no result of a QuantizeLinear")

    def passive(self, node: onnx.NodeProto) -> None:
        """Take what comes before for the result."""
        self.floats[node.output[0]] = self.float_of(node.input[0])

    def held(self, node: onnx.NodeProto) -> None:
        """Pass on what a Max does not change: deploy/graph/requantized.py has put it there."""
        quantizer = self.graph.only_consumer(node.output[0], QUANTIZE)
        limit = self.graph.constants.get(node.input[1]) if len(node.input) == 2 else None
        if quantizer is None or limit is None or limit.size != 1:
            raise cannot(node, "LiteRT's form of it is not written here")
        if not self.affine(quantizer).does_clip(float(limit.item()), math.inf):
            raise cannot(node, "it holds values that the QuantizeLinear behind it would keep")
        self.passive(node)

    def in_8_bits(self, node: onnx.NodeProto, inputs: list[str]) -> onnx.NodeProto | None:
        """Return the QuantizeLinear of a node's result if it computes in 8 bits, else None."""
        quantizer = self.graph.only_consumer(self.result(node), QUANTIZE)
        if quantizer is None or self.result(node) in self.graph.outputs:
            return None
        weights = [name for name in node.input[1:2] if node.op_type == "Conv"]
        if any(self.graph.made_by(name, DEQUANTIZE) is None for name in (*inputs, *weights)):
            return None
        if node.op_type in ONE_SCALE:
            after = self.graph.affine(quantizer)
            before = [self.graph.dequantized(name) for name in inputs]
            if any(affine is None or not affine.same_as(after) for affine in before):
                return None
        return quantizer

    def result(self, node: onnx.NodeProto) -> str:
        """Return the tensor that a node gives with the activation that is part of it."""
        return str((fused_activation(self.graph, node) or node).output[0])

    def emit(
        self,
        name: str,
        node: onnx.NodeProto,
        inputs: list[str],
        *more: int,
        pads: Pads | None = None,
        **options: Any,
    ) -> None:
        """Append an operator, in 8 bits if it is quantized; ``more`` are indices of constants."""
        quantizer = self.in_8_bits(node, inputs)
        activation = fused_activation(self.graph, node)
        if activation is not None:
            self.done.add(activation.name)
            options["fusedActivationFunction"] = self.fused(activation, quantizer)
        sources = self.sources(inputs, quantizer)
        if pads is not None:
            sources = [self.with_pads(sources[0], pads, lowest=name == "MAX_POOL_2D")]
        output, shape = self.result(node), self.shape(self.result(node))
        if quantizer is None:
            index = self.floats[output] = self.tensor(output, shape, FLOAT)
        else:
            index = self.tensor(quantizer.output[0], shape, INT8, self.affine(quantizer))
            self.integers[quantizer.output[0]] = index
        self.operators.append(
            Operator(name=name, inputs=(*sources, *more), output=index, options=options)
        )

    def sources(self, inputs: list[str], quantizer: onnx.NodeProto | None) -> list[int]:
        """Return the indices of a node's images, in 8 bits or float."""
        if quantizer is None:
            return [self.float_of(name) for name in inputs]
        return [self.integers[self.graph.producers[name].input[0]] for name in inputs]

    def fused(self, activation: onnx.NodeProto, quantizer: onnx.NodeProto | None) -> int:
        """Return the schema's number of an activation; none where the quantization does it."""
        bounds = self.bounds(activation)
        if quantizer is not None and self.affine(quantizer).does_clip(*bounds):
            return NONE
        if bounds not in ACTIVATIONS:
            raise cannot(activation, "of Clips LiteRT has the one from 0 to 6")
        return ACTIVATIONS[bounds][0]

    def conv(self, node: onnx.NodeProto) -> None:
        """Translate a convolution with the activation behind it."""
        given = attributes(node)
        weight, own = self.weight(node)
        group, channels = int(given.get("group", 1)), len(weight)
        depthwise = group > 1 and weight.shape[1] == 1
        padding, pads = self.window(node, weight.shape[2:])
        options = {"padding": padding}
        for ours, theirs in (("strides", "stride{}"), ("dilations", "dilation{}Factor")):
            for axis, value in zip("HW", given.get(ours, [1, 1]), strict=True):
                options[theirs.format(axis)] = value
        if depthwise:
            options["depthMultiplier"] = channels // group
        stored = weight.transpose((1, 2, 3, 0) if depthwise else (0, 2, 3, 1))
        scales = None
        if own is not None:
            scale = np.broadcast_to(own.scale.reshape(-1), channels).astype(np.float32)
            scales = Quantization(scale=scale, axis=3 if depthwise else 0)
        filters = self.constant(node.input[1], stored, scales)
        bias = self.constant(*self.bias(node, channels, weight.dtype))
        name = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
        self.emit(name, node, [node.input[0]], filters, bias, pads=pads, **options)

    def weight(self, node: onnx.NodeProto) -> tuple[NDArray[Any], Affine | None]:
        """Return a weight as it is stored, and its scales where it computes in 8 bits."""
        graph, name = self.graph, node.input[1]
        own = graph.dequantized(name)
        value = graph.constants.get(name) if own is None else graph.integers(name)
        if value is None or value.ndim != 4:
            raise cannot(node, "its weight is no constant of four dimensions")
        in_8_bits = self.in_8_bits(node, [node.input[0]]) is not None
        if in_8_bits != (own is not None):
            raise cannot(node, "of its image, its weight and its result some are quantized")
        if own is None:
            return value, None
        if own.dtype != INT8 or own.zero_point.any() or not (own.per_tensor or own.axis == 0):
            raise cannot(node, "its weight is not int8 with zero point 0 and scales along axis 0")
        return value, own

    def bias(
        self, node: onnx.NodeProto, channels: int, dtype: np.dtype[Any]
    ) -> tuple[str, NDArray[Any], Quantization | None]:
        """Return name, values and scales of a convolution's bias, zeros where it has none."""
        graph, name = self.graph, node.input[2] if len(node.input) > 2 else ""
        own = graph.dequantized(name) if name else None
        if dtype != INT8:
            values = graph.constants.get(name) if name else np.zeros(channels, dtype)
            if values is None or own is not None:
                raise cannot(node, "its bias is no float constant")
            return name or f"{node.name}_zeros", values, None
        if not name:
            image, weight = (graph.dequantized(each) for each in node.input[:2])
            assert image is not None
            assert weight is not None
            scale = np.broadcast_to(image.scale * weight.scale, channels).astype(np.float32)
            zeros = np.zeros(channels, np.int32)
            return f"{node.name}_zeros", zeros, Quantization(scale=scale)
        values = graph.integers(name)
        if own is None or values is None or own.dtype != np.int32:
            raise cannot(node, "its bias is not int32 with the accumulator's scale")
        scale = np.broadcast_to(own.scale.reshape(-1), channels).astype(np.float32)
        return name, values, Quantization(scale=scale)

    def add(self, node: onnx.NodeProto) -> None:
        """Translate the sum of two tensors of one shape."""
        shapes = [self.graph.shapes.get(name) for name in node.input]
        if shapes[0] is None or shapes[0] != shapes[1]:
            raise cannot(node, "two images of one size are expected")
        if any(name in self.graph.constants for name in node.input):
            raise cannot(node, "one of its inputs is constant")
        self.emit("ADD", node, list(node.input))

    def activation(self, node: onnx.NodeProto) -> None:
        """Translate a Relu or Clip that is part of no other node."""
        bounds = self.bounds(node)
        if bounds not in ACTIVATIONS:
            raise cannot(node, "of Clips LiteRT has the one from 0 to 6")
        self.emit(ACTIVATIONS[bounds][1], node, [node.input[0]])

    def bounds(self, node: onnx.NodeProto) -> tuple[float, float]:
        """Return the bounds of a Relu or Clip."""
        bounds = activation_bounds(self.graph, node)
        if bounds is None:
            raise cannot(node, "its bounds are no constants")
        return bounds

    def concat(self, node: onnx.NodeProto) -> None:
        """Translate a concatenation of images along channels, rows or columns."""
        axis = int(attributes(node)["axis"]) % 4
        if axis == 0 or any(name in self.graph.constants for name in node.input):
            raise cannot(node, "it joins whole images, or one of its inputs is constant")
        self.emit("CONCATENATION", node, list(node.input), axis={1: 3, 2: 1, 3: 2}[axis])

    def pool(self, node: onnx.NodeProto) -> None:
        """Translate a pooling; padding is the lowest value, which no maximum sees.

        A mean is over what lies in the image: LiteRT's own padding is not counted.
        """
        given, is_mean = attributes(node), node.op_type == "AveragePool"
        if any(node.output[1:]) or any(each != 1 for each in given.get("dilations", [])):
            raise cannot(node, "it gives indices, or is dilated")
        kernel, strides = given["kernel_shape"], given.get("strides", [1, 1])
        padding, pads = self.window(node, tuple(kernel))
        options = {"padding": padding, "filterHeight": kernel[0], "filterWidth": kernel[1]}
        options |= {"strideH": strides[0], "strideW": strides[1]}
        if is_mean and (pads is not None or (given.get("count_include_pad") and padding == SAME)):
            raise cannot(
                node, "LiteRT's means have padding of ceil(size / stride), and leave it out"
            )
        name = "AVERAGE_POOL_2D" if is_mean else "MAX_POOL_2D"
        self.emit(name, node, [node.input[0]], pads=pads, **options)

    def resize(self, node: onnx.NodeProto) -> None:
        """Translate a bilinear resize to a fixed size."""
        given = attributes(node)
        way = given.get("coordinate_transformation_mode", b"half_pixel")
        if given.get("mode", b"nearest") != b"linear" or way not in LINEAR_MODES:
            raise cannot(node, "bilinear by half pixels or aligned corners is what LiteRT has")
        if given.get("antialias") or given.get("axes"):
            raise cannot(node, "antialias and axes are not translated")
        size, result = (self.shape(name)[1:3] for name in (node.input[0], node.output[0]))
        name = node.input[2] if len(node.input) > 2 else ""
        if name and way != b"align_corners":
            scales = np.asarray(self.graph.constants.get(name, []), np.float64)[-2:]
            if not np.array_equal(scales * size, result):
                raise cannot(node, "its scales are not those of its sizes")
        if way == b"pytorch_half_pixel" and 1 in result:
            raise cannot(node, "to a size of 1 LiteRT takes the middle")
        sizes = self.constant(f"{node.name}_size", np.array(result, np.int32))
        corners, halves = LINEAR_MODES[way]
        ways = {"alignCorners": corners, "halfPixelCenters": halves}
        self.emit("RESIZE_BILINEAR", node, [node.input[0]], sizes, pads=None, **ways)

    def window(self, node: onnx.NodeProto, kernel: tuple[int, ...]) -> tuple[int, Pads | None]:
        """Return the schema's padding, and what must be padded before."""
        sizes = [self.shape(name)[1:3] for name in (node.input[0], node.output[0])]
        return find_window(node, kernel, *sizes)
