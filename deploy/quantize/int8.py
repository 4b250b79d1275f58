"""Static 8-bit quantization: float graph and ranges in, QDQ graph out.

The form is the target's profile. By default activations are unsigned 8-bit with one scale and zero
point for a tensor, weights signed 8-bit, symmetric, with one scale for each output channel, biases
32-bit with the scale of the accumulator: what onnxruntime's CPU kernels compute in integers
(onnxruntime, "Quantize ONNX models").
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from deploy.graph.activations import activations
from deploy.graph.graph import Graph, rebuilt
from deploy.graph.names import Names
from deploy.graph.profile import Bias, Profile
from deploy.quantize.placement import Placement

BIAS_MAX = 2**30  # of an int32 bias, so that the accumulator keeps room for the products
INT8_MAX = 127  # symmetric: -128 is not used
HALVINGS = 3  # of a power-of-two scale that are tried
ACTIVATION, PARAMETER, NODE = "activation", "parameter", "node"  # what a name is for

Float32 = NDArray[np.float32]
Ranges = Mapping[str, tuple[float, float]]  # (low, high) of a tensor, zero inside


@dataclass(frozen=True, kw_only=True)
class ActivationScale:
    """x ≈ (q - zero_point) * scale, q in the type of ``zero_point``."""

    scale: np.float32
    zero_point: np.uint8 | np.int8


def activation_scale(low: float, high: float, profile: Profile) -> ActivationScale:
    """Return scale and zero point for a range that holds zero.

    Zero is represented exactly (Jacob et al. 2018, arXiv 1712.05877, section 2.1). A tensor that
    is zero everywhere gets scale 1.
    """
    limits = np.iinfo(profile.activation)
    lowest = int(limits.min)
    if profile.symmetric:
        scale = _scale(np.float32(max(-low, high) / limits.max), profile)
        return ActivationScale(scale=scale, zero_point=profile.activation(0))
    scale = _scale(np.float32((high - low) / (limits.max - lowest)), profile)
    zero_point = lowest + round(-low / float(scale))
    return ActivationScale(scale=scale, zero_point=profile.activation(zero_point))


class QuantizedWeight(NamedTuple):
    """weight[m] ≈ q[m] * scale[m]."""

    q: NDArray[np.int8]  # (M, …)
    scale: Float32  # (M,), or () where one scale serves all channels


def quantize_weight(
    weight: Float32, profile: Profile, bias: Float32 | None, input_scale: np.float32
) -> QuantizedWeight:
    """Round a weight (M, …) to the nearest integers.

    A channel whose weights are so small that its bias would not fit 32 bits with the accumulator's
    scale gets the scale at which it does. Where the bias stays float, a runtime may round it so:
    onnxruntime does, and lets it overflow.
    """
    channels = weight.reshape(weight.shape[0] if profile.per_channel else 1, -1)
    scale = (np.abs(channels).max(axis=1) / profile.weight_max).astype(np.float32)
    if bias is not None and profile.bias is not Bias.INT8:
        fitting = np.abs(bias) / (input_scale * np.float32(BIAS_MAX))
        scale = np.maximum(scale, fitting if profile.per_channel else fitting.max())
    scale = _scale(scale, profile)
    if profile.power_of_two:
        scale = _least_error(channels, scale, profile.weight_max)
    q = _round(channels, scale, profile.weight_max).reshape(weight.shape).astype(np.int8)
    return QuantizedWeight(q=q, scale=scale if profile.per_channel else scale[0])


def _round(channels: Float32, scale: Float32, limit: int) -> Float32:
    """Return q, (M, K), of channels with a scale each."""
    q: Float32 = np.rint(channels / scale[:, None]).clip(-limit, limit)
    return q


def _least_error(channels: Float32, scale: Float32, limit: int) -> Float32:
    """Return, of each channel's scale and its halves, the one of least squared error, (M,).

    Between powers of two up to half of the range stays unused: clipping the outermost weights then
    costs less (AMD Quark for ONNX, PowerOfTwoMethod.MinMSE).
    """
    candidates = [scale / np.float32(2**k) for k in range(HALVINGS + 1)]
    errors = [
        np.square(_round(channels, s, limit) * s[:, None] - channels).sum(axis=1)
        for s in candidates
    ]
    best: Float32 = np.choose(np.argmin(errors, axis=0), candidates)
    return best


def quantize_bias(
    bias: Float32, profile: Profile, accumulator_scale: Float32
) -> tuple[NDArray[np.int32 | np.int8], Float32]:
    """Return q and scale of a bias, float32 (M,): the accumulator's, or one of its own."""
    if profile.bias is Bias.INT32:
        q = np.rint(bias.astype(np.float64) / accumulator_scale)
        return q.astype(np.int32), accumulator_scale
    scale = _scale(np.float32(np.abs(bias).max() / INT8_MAX), profile)
    return np.rint(bias / scale).clip(-INT8_MAX, INT8_MAX).astype(np.int8), scale


def _scale(smallest: Any, profile: Profile) -> Any:
    """Return the scale, float32, that the profile allows next; 1 for what is zero everywhere."""
    scale = np.where(smallest >= np.finfo(np.float32).tiny, smallest, np.float32(1))
    if profile.power_of_two:
        scale = np.exp2(np.ceil(np.log2(scale)))
    return scale.astype(np.float32)[()]


def nearest_weights(
    graph: Graph, placement: Placement, ranges: Ranges, profile: Profile
) -> dict[str, QuantizedWeight]:
    """Return the weights of the convolutions to quantize, by node, rounded to the nearest."""
    weights = {}
    for node in graph.model.graph.node:
        if node.op_type == "Conv" and node.name in placement.nodes:
            root = placement.scale_of[activations(graph, node)[0]]
            input_scale = activation_scale(*ranges[root], profile).scale
            weight = graph.constants[node.input[1]].astype(np.float32)
            weights[node.name] = quantize_weight(weight, profile, bias_of(graph, node), input_scale)
    return weights


def bias_of(graph: Graph, node: onnx.NodeProto) -> Float32 | None:
    """Return the bias of a convolution, float32 (M,), or None."""
    if len(node.input) < 3 or not node.input[2]:
        return None
    return graph.constants[node.input[2]].astype(np.float32)


def quantize_int8(
    graph: Graph,
    placement: Placement,
    ranges: Ranges,
    profile: Profile,
    weights: Mapping[str, QuantizedWeight] | None = None,
) -> onnx.ModelProto:
    """Return the QDQ graph.

    Args:
        graph: the float graph; not changed.
        placement: what to quantize.
        ranges: of every tensor that ``placement`` observes.
        profile: the target's; ``placement`` is made for it.
        weights: of each convolution that ``placement`` quantizes; by default the nearest integers.
    """
    weights = weights or nearest_weights(graph, placement, ranges, profile)
    return _Writer(graph, placement, ranges, profile, weights).write()


class _Writer:
    """Builds the nodes and initializers of one QDQ graph."""

    def __init__(
        self,
        graph: Graph,
        placement: Placement,
        ranges: Ranges,
        profile: Profile,
        weights: Mapping[str, QuantizedWeight],
    ) -> None:
        self.graph = graph
        self.weights = weights
        self.profile = profile
        self.scales = {
            name: activation_scale(*ranges[name], profile) for name in placement.observed
        }
        self.placement = placement
        self.quantized_nodes = set(placement.nodes)
        self.names = Names(graph.model)
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
        return rebuilt(source, self.nodes, [*kept, *self.initializers.values()])

    def copy(self, node: onnx.NodeProto) -> None:
        """Append a node, reading dequantized inputs and writing quantized outputs."""
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        dequantized = self.placement.reads.get(node.name, frozenset())
        for i, name in enumerate(node.input):
            copy.input[i] = self.dequantized(name) if name in dequantized else self.float_(name)
        if node.name in self.quantized_nodes and node.op_type == "Conv":
            self.quantize_parameters(node, copy)
        self.nodes.append(copy)
        for i, name in enumerate(node.output):
            copy.output[i] = self.float_(name)
            if name in self.placement.scale_of:
                self.quantize_activation(name, copy.output[i])

    def float_(self, name: str) -> str:
        """Return the name of a tensor before it is quantized; what is the graph's keeps its own."""
        kept = name not in self.placement.scale_of or name not in self.graph.producers
        own = kept or (name in self.graph.outputs and name not in self.placement.outputs)
        return name if own else self.names.get(f"{name}_float", ACTIVATION)

    def dequantized(self, name: str) -> str:
        """Return the name of a tensor after it is dequantized."""
        if name in self.placement.outputs:
            return name
        return self.names.get(f"{name}_dequantized", ACTIVATION)

    def quantize_activation(self, name: str, source: str) -> None:
        """Append the QuantizeLinear and DequantizeLinear of a tensor that ``source`` holds."""
        root = self.placement.scale_of[name]
        scale = self.scales[root]
        parameters = [
            self.constant(self.names.get(f"{root}_scale", ACTIVATION), scale.scale),
            self.constant(self.names.get(f"{root}_zero_point", ACTIVATION), scale.zero_point),
        ]
        quantized = self.names.get(f"{name}_quantized", ACTIVATION)
        self.append("QuantizeLinear", [source, *parameters], quantized)
        self.append("DequantizeLinear", [quantized, *parameters], self.dequantized(name))

    def quantize_parameters(self, node: onnx.NodeProto, copy: onnx.NodeProto) -> None:
        """Replace the weight and bias of a convolution by dequantized integers."""
        root = self.placement.scale_of[activations(self.graph, node)[0]]
        input_scale = self.scales[root].scale
        bias = bias_of(self.graph, node)
        q, scale = self.weights[node.name]
        # Parameters are named after the node: two convolutions may share a weight, not its scale.
        copy.input[1] = self.dequantized_constant(f"{node.name}.weight", q, scale)
        if bias is not None and self.profile.bias is not Bias.FLOAT:
            accumulator_scale = (input_scale * scale).astype(np.float32)
            bias_q, bias_scale = quantize_bias(bias, self.profile, accumulator_scale)
            copy.input[2] = self.dequantized_constant(f"{node.name}.bias", bias_q, bias_scale)

    def dequantized_constant(
        self, name: str, q: NDArray[np.integer], scale: NDArray[np.float32]
    ) -> str:
        """Append integers, with a scale for each output channel or one; return their float name."""
        integers, scales, zeros, result = (
            self.names.get(f"{name}_{what}", PARAMETER)
            for what in ("quantized", "scale", "zero_point", "dequantized")
        )
        parameters = [
            self.constant(integers, q),
            self.constant(scales, scale),
            self.constant(zeros, np.zeros(scale.shape, q.dtype)),
        ]
        axis = {"axis": 0} if scale.ndim else {}
        self.append("DequantizeLinear", parameters, result, **axis)
        return result

    def constant(self, name: str, value: NDArray[np.generic] | np.generic) -> str:
        """Add an initializer once; return its name."""
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def append(self, op_type: str, inputs: list[str], output: str, **attributes: Any) -> None:
        """Append a node with one output, named after it."""
        name = self.names.get(f"{output}/{op_type}", NODE)
        self.nodes.append(helper.make_node(op_type, inputs, [output], name=name, **attributes))
