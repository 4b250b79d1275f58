"""Rewrites of a QDQ graph that save time where a profile asks for them.

All but that of Resizes (resize_convolution.py) change no result: every value that a rewritten graph
computes is the same sum of the same products in the same order, with zeros more, or the same
maximum: in the integers of a runtime's 8-bit kernels, and in floats as well where a runtime
computes in these between Q/DQ.
"""

from typing import Any

import onnx
from onnx import helper

from deploy.graph.graph import Graph, attributes, with_nodes
from deploy.graph.names import Names
from deploy.graph.profile import Profile
from deploy.quantize.direct_convolution import align_channels
from deploy.quantize.resize_convolution import convolve_resizes
from deploy.quantize.same_scale import requantize, same_quantization

SEPARABLE_KERNEL = 5  # of 3x3 windows, a second pass costs what fewer comparisons save


def rewrite(model: onnx.ModelProto, profile: Profile) -> onnx.ModelProto:
    """Return a QDQ graph for ``profile`` with the rewrites that make it faster there.

    Its logits are bit for bit those of ``model`` in onnxruntime, optimized or not, but where
    Resizes become convolutions.
    """
    if profile.separable_pooling:
        model = separate_pooling(model)
    if profile.direct_convolution:
        model = align_channels(model)
    if profile.convolve_resizes:
        model = convolve_resizes(model, profile.weight_max)
    return model


def separate_pooling(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with each large max-pooling as one along the height, one along the width.

    A window is a product of rows and columns, whatever stride, dilation, padding and rounding of
    the size are, and what lies outside the image never wins: the maximum over it is the maximum
    over its columns of the maxima over its rows, with k + k comparisons for k².
    """
    graph, names = Graph(model), Names(model)
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        nodes += _pool_twice(graph, node, names) if _is_separable(graph, node) else [node]
    return with_nodes(model, nodes)


def _is_separable(graph: Graph, node: onnx.NodeProto) -> bool:
    """Say whether a node is a large 8-bit max-pooling over two dimensions, and gives no indices."""
    if node.op_type != "MaxPool" or len(node.output) > 1:
        return False
    if same_quantization(graph, node) is None:
        return False
    kernel = attributes(node)["kernel_shape"]
    return len(kernel) == 2 and min(kernel) >= SEPARABLE_KERNEL


def _pool_twice(graph: Graph, node: onnx.NodeProto, names: Names) -> list[onnx.NodeProto]:
    """Return the two poolings, with Q/DQ of the same scale and zero point between them."""
    name = f"{node.output[0]}_rows"
    parameters = graph.producers[node.input[0]].input[1:]
    first, second = _along(node, 0), _along(node, 1)
    first.name, first.output[0] = names.get(f"{node.name}/rows"), names.get(f"{name}_float")
    quantize, dequantize = requantize(first.output[0], name, parameters, names)
    second.input[0] = dequantize.output[0]
    return [first, quantize, dequantize, second]


def _along(node: onnx.NodeProto, axis: int) -> onnx.NodeProto:
    """Return a pooling over two dimensions that leaves all but ``axis``, 0 or 1, as it is."""
    values: dict[str, Any] = attributes(node)
    other = 1 - axis
    for name in {"kernel_shape", "strides", "dilations"} & values.keys():
        values[name][other] = 1
    if "pads" in values:  # beginnings, then ends
        values["pads"][other] = values["pads"][2 + other] = 0
    return helper.make_node("MaxPool", node.input, node.output, name=node.name, **values)
