"""A QDQ graph as others' compilers take it: a float graph, and a range for every tensor.

Its weights stand for the integers exactly, its biases are the QDQ graph's: a compiler that is told
both finds the same integers again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from deploy.errors import GraphError
from deploy.graph.activations import fused_activation
from deploy.graph.graph import Graph, attributes, rebuilt
from deploy.graph.half import has_half
from deploy.graph.integers import is_quantized
from deploy.graph.qdq import DEQUANTIZE, QUANTIZE, QdqGraph

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)


@dataclass(frozen=True, kw_only=True)
class Carried:
    """A float graph and what is to be quantized of it.

    Attributes:
        model: float32, without Q, DQ and Casts between float types.
        ranges: (low, high) of every tensor that was quantized, and of what a convolution gives to
            the activation that it absorbs; empty for a float graph.
        was_half: whether the graph was in half precision.
    """

    model: onnx.ModelProto
    ranges: Mapping[str, tuple[float, float]]
    was_half: bool = False


def carried(model: onnx.ModelProto) -> Carried:
    """Return a float graph, one in half precision or a QDQ graph as a float one.

    Raises:
        GraphError: it holds integer operators, or a scale that is no constant.
    """
    if not is_quantized(model) and not has_half(model):
        return Carried(model=model, ranges={})
    work = _Unquantized(QdqGraph.of(model))
    result = work.run()
    graph = Graph(result)
    ranges = dict(work.ranges)
    for node in result.graph.node:
        activation = fused_activation(graph, node)
        if activation is not None and activation.output[0] in ranges:
            ranges[node.output[0]] = ranges[activation.output[0]]
    return Carried(model=result, ranges=ranges, was_half=has_half(model))


@dataclass
class _Unquantized:
    """The work on one graph: what each tensor is called now, and what was quantized."""

    graph: QdqGraph
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)  # of a removed tensor: the one before it
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)

    def run(self) -> onnx.ModelProto:
        source = self.graph.model
        self.constants = {t.name: _single(t) for t in source.graph.initializer}
        for node in source.graph.node:
            if not self.removes(node):
                copy = onnx.NodeProto()
                copy.CopyFrom(node)
                copy.input[:] = [self.names.get(name, name) for name in node.input]
                self.nodes.append(copy)
        self.restore_outputs()
        used = {name for node in self.nodes for name in node.input}
        constants = (t for name, t in self.constants.items() if name in used)
        return rebuilt(source, self.nodes, constants)

    def removes(self, node: onnx.NodeProto) -> bool:
        """Say whether a node vanishes; keep what it says."""
        graph = self.graph
        if node.op_type == DEQUANTIZE and node.input[0] in graph.constants:
            self.constants[node.output[0]] = _dequantized(graph, node)
            return True
        if node.op_type == QUANTIZE:
            affine, source = graph.affine(node), self.names.get(node.input[0], node.input[0])
            if not affine.per_tensor:
                raise GraphError(f"{node.name} has a scale for each channel of an activation")
            self.ranges.setdefault(source, affine.bounds)
        elif node.op_type == "Cast":
            if attributes(node)["to"] not in FLOATS:
                return False
        elif node.op_type != DEQUANTIZE:
            if self.takes_integers(node):
                raise GraphError(
                    f"{node.name} ({node.op_type}) computes on bare integers: the graph is made "
                    "for another runtime"
                )
            return False
        self.names[node.output[0]] = self.names.get(node.input[0], node.input[0])
        return True

    def takes_integers(self, node: onnx.NodeProto) -> bool:
        """Say whether an operator's first input is what a QuantizeLinear gives."""
        return bool(node.input) and self.graph.made_by(node.input[0], QUANTIZE) is not None

    def restore_outputs(self) -> None:
        """Give the tensors that are the graph's outputs now their names."""
        back = {
            self.names[value.name]: value.name
            for value in self.graph.model.graph.output
            if value.name in self.names
        }
        for node in self.nodes:
            node.input[:] = [back.get(name, name) for name in node.input]
            node.output[:] = [back.get(name, name) for name in node.output]
        self.ranges = {back.get(name, name): r for name, r in self.ranges.items()}


def _dequantized(graph: QdqGraph, node: onnx.NodeProto) -> onnx.TensorProto:
    """Return what a DequantizeLinear gives of a constant, float32."""
    affine = graph.affine(node)
    q: NDArray[np.float64] = graph.constants[node.input[0]].astype(np.float64)
    shape = [1] * q.ndim
    if not affine.per_tensor:
        shape[affine.axis] = -1
    scale, zero = affine.scale.reshape(shape), affine.zero_point.reshape(shape)
    return numpy_helper.from_array(((q - zero) * scale).astype(np.float32), node.output[0])


def _single(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """Return a constant in float32 where it is in half precision."""
    if tensor.data_type != TensorProto.FLOAT16:
        return tensor
    value = numpy_helper.to_array(tensor).astype(np.float32)
    return numpy_helper.from_array(value, tensor.name)


def with_old_ir(model: onnx.ModelProto, version: int) -> onnx.ModelProto:
    """Return a copy of an IR version that older tools read; nothing newer is in these graphs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.ir_version = min(model.ir_version, version)
    return copy
