"""The carrier: a float graph that any compiler takes, with our quantization inside.

Compilers that take no QDQ graph, or lose what it says, calibrate a float graph by themselves. One
whose weights are our rounded ones and whose biases are corrected, together with a range for every
tensor in their own form, makes of their integers ours: the common currency of all accelerators.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from deploy.calibration.preprocess import Float32Array
from deploy.graph.activations import fused_activation
from deploy.graph.graph import Graph, without_unused_constants
from deploy.quantize.int8 import QuantizedWeight, Ranges
from deploy.quantize.placement import Placement
from deploy.quantize.weights import with_biases


@dataclass(frozen=True, kw_only=True)
class Carrier:
    """A float graph, what is quantized of it, and how.

    Attributes:
        graph: its weights are the integers' values, its biases the corrected ones.
        placement: what is meant to compute in 8 bits.
        ranges: (low, high) of every tensor that is quantized, and of what a convolution gives to
            the activation that it absorbs; zero lies inside.
        weights: the integers and their scales, by the convolution's name.
    """

    graph: Graph
    placement: Placement
    ranges: Ranges
    weights: Mapping[str, QuantizedWeight]


def carry(
    graph: Graph,
    placement: Placement,
    ranges: Ranges,
    weights: Mapping[str, QuantizedWeight],
    biases: Mapping[str, Float32Array],
) -> Carrier:
    """Return the carrier of a quantization.

    Args:
        graph: the float graph; not changed.
        placement: what is quantized.
        ranges: of every tensor that ``placement`` observes.
        weights: the integers of each convolution; those that ``placement`` leaves out stay float.
        biases: (M,) of each convolution whose bias is another than the graph's.
    """
    quantized = set(placement.nodes)
    carried = {name: weight for name, weight in weights.items() if name in quantized}
    corrected = {name: bias for name, bias in biases.items() if name in quantized}
    model = with_biases(graph, corrected).model
    for node in model.graph.node:
        if node.name in carried:
            node.input[1] = _add(model, f"{node.name}.weight_rounded", _values(carried[node.name]))
    return Carrier(
        graph=Graph(without_unused_constants(model)),
        placement=placement,
        ranges=_every_range(graph, placement, ranges),
        weights=carried,
    )


def _every_range(graph: Graph, placement: Placement, ranges: Ranges) -> Ranges:
    found = {name: ranges[root] for name, root in placement.scale_of.items()}
    for node in graph.model.graph.node:
        activation = fused_activation(graph, node)
        if activation is not None and activation.output[0] in found:
            found[node.output[0]] = found[activation.output[0]]
    return found


def _values(weight: QuantizedWeight) -> Float32Array:
    """Return what the integers stand for, float32 (M, …)."""
    scale = np.asarray(weight.scale, np.float32).reshape(-1, *[1] * (weight.q.ndim - 1))
    values: Float32Array = weight.q.astype(np.float32) * scale
    return values


def _add(model: onnx.ModelProto, name: str, value: Float32Array) -> str:
    model.graph.initializer.append(numpy_helper.from_array(value, name))
    return name
