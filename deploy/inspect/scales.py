"""The scales and zero points of a quantized graph, of any tool."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from deploy.errors import GraphError
from deploy.graph.graph import attributes
from deploy.graph.integers import find_form
from deploy.graph.qdq import DEQUANTIZE, QUANTIZE, QdqGraph
from deploy.inspect.work import WEIGHTED

Int64Array = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class QuantizedTensor:
    """How an activation is quantized: x ≈ (q - zero_point) * scale."""

    tensor: str
    type: str  # of q
    scale: float  # the largest, if there are several
    zero_point: int
    low: float  # the smallest value that q can stand for
    high: float


@dataclass(frozen=True, kw_only=True)
class QuantizedWeight:
    """A weight in integers, as its node takes it."""

    node: str
    values: NDArray[np.generic]
    scale: NDArray[np.float64]  # () or (channels,)
    zero_point: Int64Array
    axis: int  # of the output channels
    data: QuantizedTensor | None  # what the node takes besides
    bias: NDArray[np.generic] | None


@dataclass(frozen=True, kw_only=True)
class WeightForm:
    """How a weight is stored, without its values."""

    node: str
    type: str
    scales: int  # 1, or one for each output channel
    smallest_scale: float
    largest_scale: float
    largest_value: int  # of |q - zero_point|
    symmetric: bool  # zero points are 0
    bias: str | None  # its type, if it is in integers


@dataclass(frozen=True)
class Scales:
    """What is quantized in a graph in QDQ or QOperator form, as it stands in the file."""

    graph: QdqGraph

    @cached_property
    def activations(self) -> list[QuantizedTensor]:
        """Every activation that is quantized, in the graph's order; those with constant scales."""
        found: dict[str, QuantizedTensor] = {}
        for node in self.graph.model.graph.node:
            tensor = self._activation(node)
            if tensor is not None:
                found.setdefault(tensor.tensor, tensor)
        return list(found.values())

    def _activation(self, node: onnx.NodeProto) -> QuantizedTensor | None:
        """Return the activation that a node quantizes, or dequantizes if it came in integers."""
        constants, form = self.graph.constants, find_form(node)
        if form is not None:
            scale, zero_point = (constants.get(node.input[place]) for place in form.result)
            return _tensor(node.output[0], scale, zero_point)
        if node.op_type == QUANTIZE and node.input[0] not in constants:
            return self._affine(node, node.input[0])
        if node.op_type == DEQUANTIZE and self._is_given(node.input[0]):
            return self._affine(node, node.input[0])
        return None

    def _is_given(self, name: str) -> bool:
        """Say whether the graph's user gives a tensor."""
        return name not in self.graph.producers and name not in self.graph.constants

    def _affine(self, node: onnx.NodeProto, name: str) -> QuantizedTensor | None:
        try:
            affine = self.graph.affine(node)
        except GraphError:
            return None  # counted as unreadable
        return _tensor(name, affine.scale, affine.zero_point.astype(affine.dtype))

    @cached_property
    def by_name(self) -> dict[str, QuantizedTensor]:
        """The activations by the name of their tensor, in float and in integers."""
        found = {tensor.tensor: tensor for tensor in self.activations}
        for node in self.graph.model.graph.node:  # in order: each knows what is before it
            if node.op_type in (QUANTIZE, DEQUANTIZE) and node.input[0] in found:
                found[node.output[0]] = found[node.input[0]]
        return found

    @property
    def unreadable(self) -> int:
        """How many nodes quantize with a scale that is no constant, so that it cannot be told."""
        return sum(
            any(node.input[place] not in self.graph.constants for place in _scale_places(node))
            for node in self.graph.model.graph.node
        )

    @cached_property
    def weights(self) -> list[QuantizedWeight]:
        """The weight of every node that has one in integers."""
        found = (self._weight(node) for node in self.graph.model.graph.node)
        return [weight for weight in found if weight is not None]

    def _weight(self, node: onnx.NodeProto) -> QuantizedWeight | None:
        constants, form = self.graph.constants, find_form(node)
        if form is not None and form.weight is not None:
            values, scale, zero_point = (constants.get(node.input[i]) for i in form.weight)
            has_bias = form.bias is not None and len(node.input) > form.bias
            bias = constants.get(node.input[form.bias or 0]) if has_bias else None
        elif node.op_type in WEIGHTED and (maker := self.graph.made_by(node.input[1], DEQUANTIZE)):
            try:
                affine = self.graph.affine(maker)
            except GraphError:
                return None
            values, scale, zero_point = (
                constants.get(maker.input[0]),
                affine.scale,
                affine.zero_point,
            )
            bias = self.graph.integers(node.input[2]) if len(node.input) > 2 else None
        else:
            return None
        if values is None or scale is None or zero_point is None:
            return None
        return QuantizedWeight(
            node=node.name,
            values=values,
            scale=scale.astype(np.float64),
            zero_point=zero_point.astype(np.int64),
            axis=_output_axis(node),
            data=self.by_name.get(node.input[0]),
            bias=bias,
        )

    @cached_property
    def neighbours(self) -> dict[str, set[str]]:
        """The quantized activations next to each, with no other quantized one between them."""
        before: dict[str, frozenset[str]] = {}
        found: dict[str, set[str]] = {tensor.tensor: set() for tensor in self.activations}
        for node in self.graph.model.graph.node:
            sources = frozenset().union(*(self._sources(name, before) for name in node.input))
            for name in node.output:
                before[name] = sources
        for tensor in found:
            for source in before.get(tensor, frozenset()) - {tensor}:
                found[tensor].add(source)
                found[source].add(tensor)
        return found

    def _sources(self, name: str, before: Mapping[str, frozenset[str]]) -> frozenset[str]:
        known = self.by_name.get(name)
        return before.get(name, frozenset()) if known is None else frozenset({known.tensor})


def _scale_places(node: onnx.NodeProto) -> tuple[int, ...]:
    """Return where the scale of what a node quantizes stands among its inputs."""
    if node.op_type in (QUANTIZE, DEQUANTIZE):
        return (1,)
    form = find_form(node)
    return form.result if form else ()


def _output_axis(node: onnx.NodeProto) -> int:
    """Return the axis of a weight along which the output channels lie."""
    if node.op_type in ("Conv", "QLinearConv"):
        return 0
    return 0 if attributes(node).get("transB", 0) else 1


def _tensor(
    name: str, scale: NDArray[Any] | None, zero_point: NDArray[Any] | None
) -> QuantizedTensor | None:
    if scale is None or zero_point is None:
        return None
    values, limits = scale.astype(np.float64), np.iinfo(zero_point.dtype)
    zero = zero_point.astype(np.int64)
    return QuantizedTensor(
        tensor=name,
        type=str(zero_point.dtype),
        scale=float(values.max()),
        zero_point=int(zero.ravel()[values.argmax() % zero.size]),
        low=float(((int(limits.min) - zero) * values).min()),
        high=float(((int(limits.max) - zero) * values).max()),
    )


def describe_weight(weight: QuantizedWeight) -> WeightForm:
    """Return the form of a weight."""
    return WeightForm(
        node=weight.node,
        type=str(weight.values.dtype),
        scales=weight.scale.size,
        smallest_scale=float(weight.scale.min()),
        largest_scale=float(weight.scale.max()),
        largest_value=int(np.abs(by_channel(weight)).max(initial=0)),
        symmetric=not weight.zero_point.any(),
        bias=None if weight.bias is None else str(weight.bias.dtype),
    )


def by_channel(weight: QuantizedWeight) -> Int64Array:
    """Return q - zero_point with a row for each output channel."""
    moved = np.moveaxis(weight.values.astype(np.int64), weight.axis, 0)
    rows = moved.reshape(len(moved), -1)
    zero = weight.zero_point.reshape(-1, 1)
    return rows - (zero if len(zero) in (1, len(rows)) else 0)
