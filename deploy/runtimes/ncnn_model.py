"""An ONNX graph in ncnn's form, translated operator by operator, integers bit for bit.

Float graphs, those in half precision (weights are stored as halves), and QDQ graphs in which
convolutions alone compute in 8 bits: ncnn quantizes a convolution's input by one scale, adds its
float bias to the dequantized sums, and all else is float. What it cannot say is refused.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from deploy.errors import GraphError
from deploy.graph.activations import activation_bounds, fused_activation
from deploy.graph.canonical import canonical
from deploy.graph.graph import attributes, with_node_names
from deploy.graph.qdq import DEQUANTIZE, QUANTIZE, Affine, QdqGraph
from deploy.runtimes.ncnn_files import (
    Layer,
    NcnnModel,
    Value,
    float_bytes,
    text_of,
    weight_bytes,
    with_splits,
)

PLAIN = re.compile(r"[!-~]{1,200}")  # names that ncnn reads: no blanks, 255 bytes with what we add
PASSIVE = (QUANTIZE, DEQUANTIZE, "Cast", "Identity")  # a convolution does their work, or nothing
# ncnn's keys and values (docs/developer-guide/operators.md of its repository).
RELU, CLIP = 1, 3  # activation_type
SCALE_PER_CHANNEL = 2  # int8_scale_term of Convolution
SCALE_PER_GROUP = 1  # that of ConvolutionDepthWise
# Of the layer's feature mask: its int8 Winograd kernels add in 16 bits, for weights of 6 bits.
NO_WINOGRAD = 1 << 6
BILINEAR = 2
MAXIMUM, MEAN = 0, 1  # pooling_type
EXPLICIT_PADS = 1
LINEAR_MODES = {b"half_pixel": 0, b"pytorch_half_pixel": 0, b"align_corners": 1}


def translate(model: onnx.ModelProto) -> NcnnModel:
    """Return a graph in ncnn's form.

    Raises:
        GraphError: it has an operator, or an attribute, that is not translated.
    """
    return _Translation(QdqGraph(with_node_names(canonical(model)))).run()


@dataclass
class _Translation:
    """The work of one translation: layers so far, and the blob that holds each tensor."""

    graph: QdqGraph
    layers: list[Layer] = field(default_factory=list)
    blobs: dict[str, str] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)  # tensors' nodes that are part of a convolution
    integers: set[str] = field(default_factory=set)

    def run(self) -> NcnnModel:
        does: dict[str, Callable[[onnx.NodeProto], None]] = {
            "Conv": self.conv,
            "Add": self.add,
            "Relu": self.activation,
            "Clip": self.activation,
            "AveragePool": self.pool,
            "Concat": self.concat,
            "MaxPool": self.pool,
            "Resize": self.resize,
            **dict.fromkeys(PASSIVE, self.passive),
        }
        graph = self.graph
        image, outputs = graph.input, graph.model.graph.output
        height, width = graph.input_size
        size: dict[int, Value] = {0: width, 1: height, 2: 3}
        if len(outputs) != 1:
            raise GraphError(f"the graph has {len(outputs)} outputs: the logits are expected")
        self.emit("Input", "input", (), image.name, size)
        for node in graph.model.graph.node:
            if node.name in self.done:
                continue
            if node.op_type not in does:
                raise _cannot(node, "ncnn's form of it is not written here")
            does[node.op_type](node)
        named = _renamed(self.layers, self.blobs[outputs[0].name], _plain(outputs[0].name, "out0"))
        layers = with_splits(named)
        return NcnnModel(
            param=text_of(layers),
            bin=b"".join(layer.data for layer in layers),
            input=self.blobs[image.name],
            output=_plain(outputs[0].name, "out0"),
            integer_convolutions=frozenset(self.integers),
        )

    def emit(
        self,
        kind: str,
        name: str,
        inputs: tuple[str, ...],
        output: str,
        parameters: dict[int, Value] | None = None,
        data: bytes = b"",
    ) -> str:
        """Append a layer from tensors to a tensor; return its name."""
        number = len(self.layers)
        self.blobs[output] = _plain(output, f"blob_{number}")
        layer = Layer(
            type=kind,
            name=_plain(name, f"layer_{number}"),
            inputs=tuple(self.blobs[each] for each in inputs),
            outputs=(self.blobs[output],),
            parameters=parameters or {},
            data=data,
        )
        self.layers.append(layer)
        return layer.name

    def passive(self, node: onnx.NodeProto) -> None:
        """Take what comes before for the result."""
        source = node.input[0]
        if source not in self.graph.constants:
            self.blobs[node.output[0]] = self.blobs[source]
        if node.op_type != DEQUANTIZE or source in self.graph.constants:
            return
        for taker in self.graph.consumers[node.output[0]]:
            if taker.op_type != "Conv":
                raise _cannot(taker, "it takes a quantized tensor, convolutions alone may")
        if node.output[0] in self.graph.outputs:
            raise _cannot(node, "it gives the graph's output, which ncnn leaves float")

    def conv(self, node: onnx.NodeProto) -> None:
        """Translate a convolution with the activation behind it."""
        graph, given = self.graph, attributes(node)
        group = int(given.get("group", 1))
        scales, weight = self.weight(node)
        bias = self.bias(node)
        activation = fused_activation(graph, node)
        parameters = _window(node, weight.shape[2:], dilation=2, stride=3, pads=(4, 15, 14, 16))
        parameters |= {0: len(weight), 5: int(bias is not None), 6: weight.size}
        if group > 1:
            parameters[7] = group
        if activation is not None:
            self.done.add(activation.name)
            parameters |= _activation(*self.bounds(activation))
        data = weight_bytes(weight) + (b"" if bias is None else float_bytes(bias))
        if scales is not None:
            data += _scales(node, *scales, channels=len(weight), group=group)
            parameters[8] = SCALE_PER_CHANNEL if group == 1 else SCALE_PER_GROUP
            if weight.shape[2:] != (1, 1):
                parameters[31] = NO_WINOGRAD
        name = self.emit(
            "Convolution" if group == 1 else "ConvolutionDepthWise",
            node.name,
            (node.input[0],),
            (activation or node).output[0],
            parameters,
            data,
        )
        if scales is not None:
            self.integers.add(name)

    def weight(self, node: onnx.NodeProto) -> tuple[tuple[Affine, Affine] | None, NDArray[Any]]:
        """Return how input and weight are quantized, or None, and the weight as it is stored."""
        graph = self.graph
        given, own = (graph.dequantized(name) for name in node.input[:2])
        if given is None and own is None:
            value = graph.constants.get(node.input[1])
        elif given is None or own is None:
            raise _cannot(node, "of its input and its weight one alone is quantized")
        else:
            value = graph.integers(node.input[1])
        if value is None:
            raise _cannot(node, "its weight is no constant")
        if value.ndim != 4 or value.dtype.name not in ("float32", "float16", "int8"):
            raise _cannot(node, f"its weight is of {value.ndim} dimensions, {value.dtype}")
        if given is None or own is None:
            return None, value
        for affine in (given, own):
            if affine.dtype != np.int8 or affine.zero_point.any():
                raise _cannot(
                    node,
                    f"{affine.node} has not int8 with zero point 0: 'deploy quantize --int8 "
                    "--target ncnn' makes that",
                )
        if not given.per_tensor or (not own.per_tensor and own.axis != 0):
            raise _cannot(node, "its input has one scale, its weight one for each output channel")
        if value.min() < -127:
            raise _cannot(node, "its weight holds -128, ncnn's are within ±127")
        return (given, own), value

    def bias(self, node: onnx.NodeProto) -> NDArray[Any] | None:
        """Return a convolution's bias, float."""
        name = node.input[2] if len(node.input) > 2 else ""
        if not name:
            return None
        if name not in self.graph.constants:
            raise _cannot(node, "its bias is no float constant")
        return self.graph.constants[name]

    def bounds(self, node: onnx.NodeProto) -> tuple[float, float]:
        """Return the bounds of a Relu or Clip."""
        bounds = activation_bounds(self.graph, node)
        if bounds is None:
            raise _cannot(node, "its bounds are no constants")
        return bounds

    def activation(self, node: onnx.NodeProto) -> None:
        """Translate a Relu or Clip that is no convolution's."""
        low, high = self.bounds(node)
        if (low, high) == (0, math.inf):
            self.emit("ReLU", node.name, (node.input[0],), node.output[0])
        else:
            limits: dict[int, Value] = {0: _finite(low), 1: _finite(high)}
            self.emit("Clip", node.name, (node.input[0],), node.output[0], limits)

    def add(self, node: onnx.NodeProto) -> None:
        """Translate the sum of two tensors of one shape."""
        shapes = [self.graph.shapes.get(name) for name in node.input]
        if shapes[0] is None or shapes[0] != shapes[1] or len(shapes[0]) != 4:
            raise _cannot(node, "two images of one size are expected")
        if any(name in self.graph.constants for name in node.input):
            raise _cannot(node, "one of its inputs is constant")
        self.emit("BinaryOp", node.name, tuple(node.input), node.output[0], {0: 0})

    def concat(self, node: onnx.NodeProto) -> None:
        """Translate a concatenation of images along channels, rows or columns."""
        axis = int(attributes(node)["axis"]) % 4
        if axis == 0 or any(name in self.graph.constants for name in node.input):
            raise _cannot(node, "it joins whole images, or one of its inputs is constant")
        for name in node.input:
            self.size(node, name)
        self.emit("Concat", node.name, tuple(node.input), node.output[0], {0: axis - 1})

    def pool(self, node: onnx.NodeProto) -> None:
        """Translate a pooling; what is rounded up is padded, which no maximum sees.

        A mean is over what lies in the image, or with the padding that it has.
        """
        given, is_mean = attributes(node), node.op_type == "AveragePool"
        if any(node.output[1:]) or any(each != 1 for each in given.get("dilations", [])):
            raise _cannot(node, "it gives indices, or is dilated")
        kernel, (top, left, bottom, right) = given["kernel_shape"], given.get("pads", [0] * 4)
        strides, size = given.get("strides", [1, 1]), self.size(node, node.input[0])
        result = self.size(node, node.output[0])
        whole = [(r - 1) * s + k for r, s, k in zip(result, strides, kernel, strict=True)]
        beyond = whole[0] - size[0] - top - bottom, whole[1] - size[1] - left - right
        if max(beyond) > 0 and given.get("count_include_pad"):
            raise _cannot(node, "its mean counts padding in, but not what is rounded up")
        bottom, right = bottom + max(beyond[0], 0), right + max(beyond[1], 0)
        parameters: dict[int, Value] = {
            0: MEAN if is_mean else MAXIMUM,
            1: kernel[1],
            11: kernel[0],
        }
        parameters |= {2: strides[1], 12: strides[0], 5: EXPLICIT_PADS}
        parameters |= {3: left, 14: right, 13: top, 15: bottom}
        if is_mean:
            parameters[6] = int(given.get("count_include_pad", 0))
        self.emit("Pooling", node.name, (node.input[0],), node.output[0], parameters)

    def resize(self, node: onnx.NodeProto) -> None:
        """Translate a bilinear resize to a fixed size."""
        given = attributes(node)
        way = given.get("coordinate_transformation_mode", b"half_pixel")
        if given.get("mode", b"nearest") != b"linear" or way not in LINEAR_MODES:
            raise _cannot(node, "bilinear by half pixels or aligned corners is what ncnn has")
        if given.get("antialias") or given.get("axes"):
            raise _cannot(node, "antialias and axes are not translated")
        size, result = (self.size(node, name) for name in (node.input[0], node.output[0]))
        if way != b"align_corners" and not self.is_whole(node, size, result):
            raise _cannot(node, "its scales are not those of its sizes")
        if way == b"pytorch_half_pixel" and 1 in result:
            raise _cannot(node, "to a size of 1 ncnn takes the middle")
        parameters: dict[int, Value] = {0: BILINEAR, 3: result[0], 4: result[1]}
        parameters[6] = LINEAR_MODES[way]
        self.emit("Interp", node.name, (node.input[0],), node.output[0], parameters)

    def is_whole(
        self, node: onnx.NodeProto, size: tuple[int, int], result: tuple[int, int]
    ) -> bool:
        """Say whether the result's size is exactly the given scales times the input's."""
        name = node.input[2] if len(node.input) > 2 else ""
        if not name:
            return True
        scales = np.asarray(self.graph.constants.get(name, []), np.float64)[-2:]
        return bool(np.array_equal(scales * size, result))

    def size(self, node: onnx.NodeProto, name: str) -> tuple[int, int]:
        """Return height and width of an image."""
        shape = self.graph.shapes.get(name, ())
        if len(shape) != 4 or shape[0] != 1:
            raise _cannot(node, f"{name} is no image of a fixed size (1, C, H, W)")
        return shape[2], shape[3]


def _scales(
    node: onnx.NodeProto, given: Affine, own: Affine, *, channels: int, group: int
) -> bytes:
    """Return the factors by which ncnn quantizes, 1 / scale: the weight's, the input's."""
    factors = 1 / np.broadcast_to(own.scale.reshape(-1), channels)
    if group > 1:
        by_group = factors.reshape(group, -1)
        if (by_group != by_group[:, :1]).any():
            raise _cannot(
                node, f"ncnn has one weight scale for each of its {group} groups: keep it float"
            )
        factors = by_group[:, 0]
    return float_bytes(factors) + float_bytes(1 / given.scale.reshape(1))


def _window(
    node: onnx.NodeProto,
    kernel: tuple[int, ...],
    *,
    dilation: int,
    stride: int,
    pads: tuple[int, int, int, int],
) -> dict[int, Value]:
    """Return a window's parameters: keys are the width's, 10 more are the height's.

    ``pads``: keys of left, right, top and bottom.
    """
    given = attributes(node)
    top, left, bottom, right = given.get("pads", [0] * 4)
    found: dict[int, Value] = {1: kernel[1], 11: kernel[0]}
    for key, name in ((dilation, "dilations"), (stride, "strides")):
        height, width = given.get(name, [1, 1])
        found |= {key: width, key + 10: height}
    return found | dict(zip(pads, (left, right, top, bottom), strict=True))


def _activation(low: float, high: float) -> dict[int, Value]:
    """Return the parameters of the activation that a convolution ends with."""
    if (low, high) == (0, math.inf):
        return {9: RELU}
    return {9: CLIP, 10: (_finite(low), _finite(high))}


def _finite(bound: float) -> float:
    """Return a bound, the largest float32 for infinity."""
    limit = float(np.finfo(np.float32).max)
    return min(max(bound, -limit), limit)


def _plain(name: str, otherwise: str) -> str:
    """Return a name that ncnn can read: ``name`` if it is one."""
    return name if PLAIN.fullmatch(name) else otherwise


def _renamed(layers: list[Layer], old: str, new: str) -> list[Layer]:
    """Return layers in which a blob has another name."""

    def names(given: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(new if name == old else name for name in given)

    return [
        replace(layer, inputs=names(layer.inputs), outputs=names(layer.outputs)) for layer in layers
    ]


def _cannot(node: onnx.NodeProto, reason: str) -> GraphError:
    """Return the error for a node that is not translated."""
    return GraphError(f"ncnn does not take node {node.name} ({node.op_type}): {reason}")
