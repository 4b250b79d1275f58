"""Static 8-bit quantization: float graph and ranges in, QDQ graph out.

Activations are unsigned 8-bit with one scale and zero point for a tensor, weights signed 8-bit,
symmetric, with one scale for each output channel, biases 32-bit with the scale of the accumulator:
the form that onnxruntime's CPU kernels compute in integers (onnxruntime, "Quantize ONNX models").
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from deploy.graph import Graph
from deploy.quantize.placement import Placement, activations

WEIGHT_MAX = 127  # symmetric: -128 is not used
BIAS_MAX = 2**30  # of an int32 bias, so that the accumulator keeps room for the products


@dataclass(frozen=True, kw_only=True)
class ActivationScale:
    """x ≈ (q - zero_point) * scale, q in 0…255."""

    scale: np.float32
    zero_point: np.uint8


def activation_scale(low: float, high: float) -> ActivationScale:
    """Return scale and zero point of unsigned 8 bits for a range that holds zero.

    Zero is represented exactly (Jacob et al. 2018, arXiv 1712.05877, section 2.1). A tensor that
    is zero everywhere gets scale 1.
    """
    scale = np.float32((high - low) / 255)
    if not scale >= np.finfo(np.float32).tiny:
        return ActivationScale(scale=np.float32(1), zero_point=np.uint8(0))
    return ActivationScale(scale=scale, zero_point=np.uint8(round(-low / float(scale))))


def quantize_weight(
    weight: NDArray[np.float32], bias: NDArray[np.float32] | None, input_scale: np.float32
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return q, int8 (M, …), and scale, float32 (M,), with weight[m] ≈ q[m] * scale[m].

    A channel whose weights are so small that its bias would not fit 32 bits gets the scale at which
    the bias does.
    """
    magnitude = np.abs(weight.reshape(weight.shape[0], -1)).max(axis=1)
    scale = (magnitude / WEIGHT_MAX).astype(np.float32)
    if bias is not None:
        scale = np.maximum(scale, np.abs(bias) / (input_scale * np.float32(BIAS_MAX)))
    scale = np.where(scale >= np.finfo(np.float32).tiny, scale, np.float32(1)).astype(np.float32)
    columns = (-1, *[1] * (weight.ndim - 1))
    q = np.rint(weight / scale.reshape(columns)).clip(-WEIGHT_MAX, WEIGHT_MAX)
    return q.astype(np.int8), scale


def quantize_int8(
    graph: Graph, placement: Placement, ranges: dict[str, tuple[float, float]]
) -> onnx.ModelProto:
    """Return the QDQ graph.

    Args:
        graph: the float graph; not changed.
        placement: what to quantize.
        ranges: (low, high) of every tensor that ``placement`` observes, zero inside.
    """
    return _Writer(graph, placement, ranges).write()


class _Writer:
    """Builds the nodes and initializers of one QDQ graph."""

    def __init__(
        self, graph: Graph, placement: Placement, ranges: dict[str, tuple[float, float]]
    ) -> None:
        self.graph = graph
        self.scales = {name: activation_scale(*ranges[name]) for name in placement.observed}
        self.placement = placement
        self.quantized_nodes = set(placement.nodes)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}

    def write(self) -> onnx.ModelProto:
        """Return the whole graph."""
        source = self.graph.model
        for value in source.graph.input:
            if value.name in self.placement.scale_of:
                self.quantize_activation(value.name, value.name)
        for node in source.graph.node:
            self.copy(node)
        used = {name for node in self.nodes for name in node.input}
        kept = [t for t in source.graph.initializer if t.name in used]
        model = onnx.ModelProto()
        model.CopyFrom(source)
        del model.graph.node[:], model.graph.initializer[:], model.graph.value_info[:]
        model.graph.node.extend(self.nodes)
        model.graph.initializer.extend([*kept, *self.initializers.values()])
        return model

    def copy(self, node: onnx.NodeProto) -> None:
        """Append a node, reading dequantized inputs and writing quantized outputs."""
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        quantized = node.name in self.quantized_nodes
        for i, name in enumerate(node.input):
            if name in self.placement.scale_of:
                copy.input[i] = self.dequantized(name)
        if quantized and node.op_type == "Conv":
            self.quantize_parameters(node, copy)
        self.nodes.append(copy)
        for i, name in enumerate(node.output):
            if name in self.placement.scale_of:
                copy.output[i] = f"{name}_float"
                self.quantize_activation(name, copy.output[i])

    def dequantized(self, name: str) -> str:
        """Return the name that consumers of a quantized tensor read; outputs keep their name."""
        return name if name in self.graph.outputs else f"{name}_dequantized"

    def quantize_activation(self, name: str, source: str) -> None:
        """Append the QuantizeLinear and DequantizeLinear of a tensor that ``source`` holds."""
        root = self.placement.scale_of[name]
        scale = self.scales[root]
        parameters = [
            self.constant(f"{root}_scale", scale.scale),
            self.constant(f"{root}_zero_point", scale.zero_point),
        ]
        self.append("QuantizeLinear", [source, *parameters], f"{name}_quantized")
        self.append("DequantizeLinear", [f"{name}_quantized", *parameters], self.dequantized(name))

    def quantize_parameters(self, node: onnx.NodeProto, copy: onnx.NodeProto) -> None:
        """Replace the weight and bias of a convolution by dequantized integers."""
        root = self.placement.scale_of[activations(self.graph, node)[0]]
        input_scale = self.scales[root].scale
        weight = self.graph.constants[node.input[1]].astype(np.float32)
        has_bias = len(node.input) > 2 and bool(node.input[2])
        bias = self.graph.constants[node.input[2]].astype(np.float32) if has_bias else None
        q, scale = quantize_weight(weight, bias, input_scale)
        # Parameters are named after the node: two convolutions may share a weight, not its scale.
        copy.input[1] = self.dequantized_constant(f"{node.name}.weight", q, scale)
        if bias is not None:
            bias_scale = (input_scale * scale).astype(np.float32)
            bias_q = np.rint(bias.astype(np.float64) / bias_scale).astype(np.int32)
            copy.input[2] = self.dequantized_constant(f"{node.name}.bias", bias_q, bias_scale)

    def dequantized_constant(
        self, name: str, q: NDArray[np.integer], scale: NDArray[np.float32]
    ) -> str:
        """Append integers with a scale for each output channel; return their float name."""
        parameters = [
            self.constant(f"{name}_quantized", q),
            self.constant(f"{name}_scale", scale),
            self.constant(f"{name}_zero_point", np.zeros(scale.shape, q.dtype)),
        ]
        self.append("DequantizeLinear", parameters, f"{name}_dequantized", axis=0)
        return f"{name}_dequantized"

    def constant(self, name: str, value: NDArray[np.generic] | np.generic) -> str:
        """Add an initializer once; return its name."""
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def append(self, op_type: str, inputs: list[str], output: str, **attributes: Any) -> None:
        """Append a node with one output, named after it."""
        name = f"{output}/{op_type}"
        self.nodes.append(helper.make_node(op_type, inputs, [output], name=name, **attributes))
