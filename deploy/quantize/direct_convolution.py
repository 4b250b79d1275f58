"""A rewrite that lets onnxruntime compute 8-bit convolutions directly.

Its direct convolution (convsym.cpp, MlasConvSymPackWSize) reads windows where they are, but only of
input channels in fours and output channels in eights, sixteen at least (AVX2 and AVX-VNNI; AVX-512
would do with fours). For other numbers each window is first copied out, which takes longer than the
products.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from deploy.graph.graph import Graph, attributes, with_nodes
from deploy.graph.names import Names

INPUT_CHANNELS = 4  # a multiple of it
OUTPUT_CHANNELS = 8  # likewise
LEAST_OUTPUT_CHANNELS = 16

Arrays = dict[str, NDArray[Any]]  # initializers by name


class _Filling(NamedTuple):
    """How many channels a convolution gets, and the nodes before and behind it."""

    inputs: int
    outputs: int
    source: onnx.NodeProto  # the DequantizeLinear that it reads
    result: onnx.NodeProto  # the QuantizeLinear after it


def align_channels(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with channels of 8-bit convolutions filled up to numbers that are direct.

    A Pad adds input channels that hold the zero point, with zero weights, and a Slice takes output
    channels away again: both of 8-bit tensors.
    """
    graph = Graph(model)
    fillings = {node.name: _filling(graph, node) for node in model.graph.node}
    wanted = {name: f for name, f in fillings.items() if f is not None}
    padded = {f.source.name: f.inputs for f in wanted.values() if f.inputs}
    sliced = {f.result.name for f in wanted.values() if f.outputs}
    nodes: list[onnx.NodeProto] = []
    constants: Arrays = {}
    names = Names(model)
    for node in model.graph.node:
        if node.name in padded:
            nodes += _pad_and_dequantize(node, padded[node.name], constants, names)
        elif node.name in sliced:
            nodes += _quantize_and_slice(node, graph.shapes[node.input[0]][1], constants, names)
        else:
            nodes.append(node)
        if node.name in wanted:
            constants |= _filled_parameters(graph, node, wanted[node.name])
    return with_nodes(model, nodes, constants)


def _filling(graph: Graph, node: onnx.NodeProto) -> _Filling | None:
    """Return what a convolution lacks to be direct, or None if that is nothing or cannot be had.

    A 1x1 kernel has no windows to copy out; a grouped one would need whole groups more.
    """
    if node.op_type != "Conv" or attributes(node).get("group", 1) != 1:
        return None
    weight, result = _own_weight(graph, node), _result_quantizer(graph, node)
    source = graph.made_by(node.input[0], "DequantizeLinear")
    if weight is None or source is None or result is None:
        return None
    outputs, inputs, *kernel = weight.shape
    wanted = max(LEAST_OUTPUT_CHANNELS, _round_up(outputs, OUTPUT_CHANNELS))
    filling = _Filling(_round_up(inputs, INPUT_CHANNELS) - inputs, wanted - outputs, source, result)
    alone = graph.only_consumer(node.input[0], "Conv") is node
    if filling.inputs and not (alone and len(source.input) == 3):  # others want it as it is
        return None
    useful = math.prod(kernel) > 1 and (filling.inputs or filling.outputs)
    return filling if useful and result.input[0] in graph.shapes else None


def _round_up(number: int, multiple: int) -> int:
    return math.ceil(number / multiple) * multiple


def _own_weight(graph: Graph, node: onnx.NodeProto) -> NDArray[Any] | None:
    """Return the integers (M, C, …) of a convolution's weight.

    None if they are no initializer, or if another node takes any of the weight's or bias's.
    """
    names = [
        name
        for i in range(1, len(node.input))
        for name in [node.input[i], *_stored(graph, node, i)]
    ]
    weight = graph.made_by(node.input[1], "DequantizeLinear")
    if weight is None or any(len(graph.consumers[name]) > 1 for name in names):
        return None
    return graph.constants.get(weight.input[0])


def _stored(graph: Graph, node: onnx.NodeProto, index: int) -> list[str]:
    """Return the initializers of a parameter: integers, scale, zero point, or the float alone."""
    dequantize = graph.made_by(node.input[index], "DequantizeLinear")
    names = [node.input[index]] if dequantize is None else dequantize.input
    return [name for name in names if name]


def _result_quantizer(graph: Graph, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """Return the QuantizeLinear that alone takes a convolution's result, after its activation."""
    name = node.output[0]
    for op_type in ("Relu", "Clip"):
        activation = graph.only_consumer(name, op_type)
        name = name if activation is None else activation.output[0]
    return graph.only_consumer(name, "QuantizeLinear")


def _filled_parameters(graph: Graph, node: onnx.NodeProto, filling: _Filling) -> Arrays:
    """Return weight and bias with more channels of zeros, their scales and zero points.

    Scales go on as the last one: a bias's must stay the weight's times the input's, or onnxruntime
    computes in float.
    """
    constants: Arrays = {}
    for index in range(1, len(node.input)):
        for place, name in enumerate(_stored(graph, node, index)):
            values = graph.constants[name]
            if not values.ndim:
                continue  # one for all channels
            widths = [(0, filling.outputs), (0, filling.inputs)] + [(0, 0)] * values.ndim
            mode: Any = "edge" if place == 1 else "constant"
            constants[name] = np.pad(values, widths[: values.ndim], mode)
    return constants


def _pad_and_dequantize(
    node: onnx.NodeProto, channels: int, constants: Arrays, names: Names
) -> Iterator[onnx.NodeProto]:
    """Yield a Pad with ``channels`` more that hold the zero point, and the DequantizeLinear."""
    name = node.input[0]
    pads, filled = names.get(f"{name}_pads"), names.get(f"{name}_filled")
    constants[pads] = np.array([0, 0, 0, 0, 0, channels, 0, 0])  # beginnings, ends
    inputs = [name, pads, node.input[2]]
    yield helper.make_node("Pad", inputs, [filled], name=names.get(f"{filled}/Pad"))
    yield _renamed(node, source=filled)


def _quantize_and_slice(
    node: onnx.NodeProto, channels: int, constants: Arrays, names: Names
) -> Iterator[onnx.NodeProto]:
    """Yield a QuantizeLinear, and a Slice that keeps the first ``channels`` of its result."""
    name = node.output[0]
    wanted = {f"{name}_starts": 0, f"{name}_ends": channels, f"{name}_axes": 1}
    bounds = {names.get(bound): value for bound, value in wanted.items()}
    constants |= {bound: np.array([value]) for bound, value in bounds.items()}
    filled, label = names.get(f"{name}_filled", "result"), names.get(f"{name}/Slice")
    yield _renamed(node, result=filled)
    yield helper.make_node("Slice", [filled, *bounds], [name], name=label)


def _renamed(node: onnx.NodeProto, source: str = "", result: str = "") -> onnx.NodeProto:
    """Return a copy that takes or gives another tensor."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.input[0], copy.output[0] = source or copy.input[0], result or copy.output[0]
    return copy
