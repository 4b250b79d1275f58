"""What onnxruntime would quantize by itself, and how a graph keeps it float.

A Conv, ConvTranspose or Gemm with float parameters, whose input comes from a DequantizeLinear and
whose result goes to a QuantizeLinear alone, gets its weight quantized with one scale for all
channels when a session is made, on every execution provider (onnxruntime, optimizer
WeightBiasQuantization). A node that was kept float for its accuracy would lose it so. The optimizer
follows a result through Relu and Clip only: a Max with the lowest value that the QuantizeLinear
can give changes no result, since that clips there anyway, and ends the path.

The same optimizer rounds the float bias of an 8-bit Conv to 32 bits with the accumulator's scale;
where that is tiny the bias overflows (onnxruntime issue 21000).
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from deploy.graph.graph import Graph, with_nodes
from deploy.graph.names import Names

QUANTIZED_BY_ITSELF = ("Conv", "ConvTranspose", "Gemm")
INT32_MAX = np.iinfo(np.int32).max
FOLLOWED = ("Relu", "Clip")  # from the result to its QuantizeLinear


class Requantized(NamedTuple):
    """A float node that onnxruntime would quantize, and the QuantizeLinear of its result."""

    node: onnx.NodeProto
    quantize: onnx.NodeProto


def find_requantized(model: onnx.ModelProto) -> list[Requantized]:
    """Return the float nodes that onnxruntime would quantize by itself."""
    return list(_find(Graph(model)))


def find_overflowing(model: onnx.ModelProto) -> list[str]:
    """Return the names of the 8-bit Convs whose float bias onnxruntime would let overflow."""
    graph = Graph(model)
    found = []
    for node in model.graph.node:
        if node.op_type != "Conv" or len(node.input) < 3 or node.input[2] not in graph.constants:
            continue
        sources = [graph.made_by(name, "DequantizeLinear") for name in node.input[:2]]
        names = [source.input[1] for source in sources if source is not None]
        if len(names) < 2 or not all(name in graph.constants for name in names):
            continue
        data, weight = (graph.constants[name].astype(np.float64) for name in names)
        if (np.abs(graph.constants[node.input[2]]) > data * weight * INT32_MAX).any():
            found.append(node.name)
    return found


def _find(graph: Graph) -> Iterator[Requantized]:
    initializers = {tensor.name for tensor in graph.model.graph.initializer}
    for node in graph.model.graph.node:
        if node.op_type not in QUANTIZED_BY_ITSELF or node.input[1] not in initializers:
            continue
        if graph.made_by(node.input[0], "DequantizeLinear") is None:
            continue
        after: onnx.NodeProto | None = node
        while after is not None and after.op_type != "QuantizeLinear":
            after = _only_follower(graph, after)
        if after is not None:
            yield Requantized(node, after)


def _only_follower(graph: Graph, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """Return what alone takes the node's result, if onnxruntime would look beyond it."""
    followers = graph.consumers[node.output[0]]
    if len(followers) != 1 or node.output[0] in graph.outputs:
        return None
    follower = followers[0]
    return follower if follower.op_type in (*FOLLOWED, "QuantizeLinear") else None


def keep_in_float(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with a Max before each QuantizeLinear that makes onnxruntime requantize.

    It computes the same, bit for bit; a graph without such nodes is returned as it is.
    """
    graph = Graph(model)
    found = {item.quantize.name: item for item in _find(graph)}
    if not found:
        return model
    nodes: list[onnx.NodeProto] = []
    constants, names = {}, Names(model)
    for node in model.graph.node:
        if node.name in found:
            value, lowest = node.input[0], names.get(f"{found[node.name].node.name}/lowest")
            constants[lowest] = _lowest(graph, node)
            held = names.get(f"{value}/kept_float")
            label = names.get(f"{held}/Max")
            nodes.append(helper.make_node("Max", [value, lowest], [held], name=label))
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.input[0] = held
            node = copy
        nodes.append(node)
    return with_nodes(model, nodes, constants)


def _lowest(graph: Graph, quantize: onnx.NodeProto) -> NDArray[np.float32]:
    """Return the lowest value that a QuantizeLinear's result stands for, float32 ().

    x ≈ (q - zero_point) * scale (ONNX, QuantizeLinear).
    """
    scale, zero_point = (graph.constants[name] for name in quantize.input[1:3])
    lowest = (0 if zero_point.dtype == np.uint8 else -128) - int(zero_point)
    return np.asarray(np.float32(lowest) * np.float32(scale), dtype=np.float32)
