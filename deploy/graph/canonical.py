"""One form for what exporters write in many: the same graph, as later stages look for things.

Exporters keep weights in Constant nodes or behind Identity, list initializers among the inputs,
leave paddings to a rule, add a bias by a node of its own, or rectify parts after joining them. Each
pass changes one such habit and no result; a graph that has none of them is returned as it is, to
the byte.
"""

import math
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir
from numpy.typing import NDArray
from onnx_ir.passes.common import (
    IdentityEliminationPass,
    LiftConstantsToInitializersPass,
    RemoveInitializersFromInputsPass,
)

from deploy.graph.concatenation import with_activations_before_concat
from deploy.graph.graph import Graph, attributes, with_nodes, without_unused_constants
from deploy.graph.names import Names

INITIALIZERS_ALONE = 4  # IR version since which an initializer need not be an input
Pass = Callable[[onnx.ModelProto], onnx.ModelProto]


def canonical(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph in the one form; ``model`` is not changed.

    Constants are initializers, and no inputs; no Identity stands between nodes; convolutions and
    poolings have explicit paddings; a constant that is added to a convolution's result for each
    channel is its bias; a Relu stands before a Concat, not behind it.
    """
    for each in PASSES:
        model = each(model)
    return model


def with_constants_as_initializers(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with initializers for Constant nodes, and no Identity."""
    listed = {tensor.name for tensor in model.graph.initializer}
    listed &= {value.name for value in model.graph.input}
    if not listed and not any(n.op_type in ("Constant", "Identity") for n in model.graph.node):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)  # onnx_ir shares what it reads, and names tensors in it
    graph = onnx_ir.from_proto(copy)
    graph.ir_version = max(graph.ir_version, INITIALIZERS_ALONE)
    steps = onnx_ir.passes.Sequential(
        RemoveInitializersFromInputsPass(),
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        IdentityEliminationPass(),
    )
    return onnx_ir.to_proto(steps(graph).model)


def with_explicit_pads(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with paddings in numbers where ``auto_pad`` or ``ceil_mode`` is a rule.

    SAME_UPPER and SAME_LOWER: output = ceil(input / stride), so that the total padding of an axis
    is (output - 1) * stride + (kernel - 1) * dilation + 1 - input, the odd one at its end or
    beginning (ONNX, Conv and MaxPool). A window that reaches beyond the end in ``ceil_mode`` takes
    as many values as one that reaches into padding, unless a mean counts padding in.
    """
    graph = Graph(model)
    nodes = [_covered(graph, _padded(graph, node)) for node in model.graph.node]
    changed = any(new is not old for new, old in zip(nodes, model.graph.node, strict=True))
    return with_nodes(model, nodes) if changed else model


def _padded(graph: Graph, node: onnx.NodeProto) -> onnx.NodeProto:
    if node.op_type not in ("Conv", "MaxPool", "AveragePool"):
        return node
    given = attributes(node)
    if "auto_pad" not in given:
        return node
    rule, shape = given["auto_pad"].decode(), graph.shapes.get(node.input[0])
    kernel = given.get("kernel_shape")
    if kernel is None and node.op_type == "Conv" and node.input[1] in graph.constants:
        kernel = graph.constants[node.input[1]].shape[2:]
    if rule.startswith("SAME") and (shape is None or kernel is None):
        return node
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    del copy.attribute[:]
    copy.attribute.extend(a for a in node.attribute if a.name != "auto_pad")
    if rule.startswith("SAME") and shape is not None and kernel is not None:
        axes = len(kernel)
        strides = given.get("strides", [1] * axes)
        dilations = given.get("dilations", [1] * axes)
        totals = [
            max(0, (math.ceil(size / stride) - 1) * stride + (k - 1) * dilation + 1 - size)
            for size, stride, k, dilation in zip(shape[2:], strides, kernel, dilations, strict=True)
        ]
        small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
        pads = [*small, *large] if rule == "SAME_UPPER" else [*large, *small]
        copy.attribute.append(onnx.helper.make_attribute("pads", pads))
    return copy


def _covered(graph: Graph, node: onnx.NodeProto) -> onnx.NodeProto:
    """Return a pooling whose paddings reach as far as its last window in ``ceil_mode`` does."""
    given = attributes(node)
    shapes = [graph.shapes.get(name) for name in (node.input[:1] + node.output[:1])]
    if not given.get("ceil_mode") or None in shapes or "auto_pad" in given:
        return node
    size, result = (shape[2:] for shape in shapes if shape is not None)
    axes = len(size)
    pads = list(given.get("pads", [0] * (2 * axes)))
    strides, dilations = (given.get(name, [1] * axes) for name in ("strides", "dilations"))
    for axis, kernel in enumerate(given["kernel_shape"]):
        reached = (result[axis] - 1) * strides[axis] + (kernel - 1) * dilations[axis] + 1
        beyond = reached - size[axis] - pads[axis] - pads[axes + axis]
        if beyond > 0 and given.get("count_include_pad"):
            return node
        pads[axes + axis] += max(0, beyond)
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    del copy.attribute[:]
    copy.attribute.extend(a for a in node.attribute if a.name not in ("ceil_mode", "pads"))
    copy.attribute.append(onnx.helper.make_attribute("pads", pads))
    return copy


def with_biases_in_convolutions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with what is added to each channel of a convolution's result as its bias."""
    graph = Graph(model)
    nodes: dict[str, onnx.NodeProto] = {}  # by the result that they make
    constants: dict[str, NDArray[np.generic]] = {}
    folded, names = set(), Names(model)
    for node in model.graph.node:
        addend = _bias_addend(graph, node)
        if addend is None:
            continue
        name = next(n for n in node.input if n not in graph.constants)
        convolution = graph.producers[name]
        copy = onnx.NodeProto()
        copy.CopyFrom(convolution)
        has_bias = len(convolution.input) > 2 and bool(convolution.input[2])
        own = graph.constants[convolution.input[2]].astype(np.float32) if has_bias else 0
        bias = names.get(f"{node.output[0]}/bias")
        constants[bias] = addend + own
        del copy.input[2:]
        copy.input.append(bias)
        copy.output[0] = node.output[0]
        nodes[convolution.output[0]] = copy
        folded.add(node.output[0])
    if not folded:
        return model
    kept = [
        nodes.get(node.output[0], node)
        for node in model.graph.node
        if not folded.intersection(node.output)
    ]
    return without_unused_constants(with_nodes(model, kept, constants))


def _bias_addend(graph: Graph, node: onnx.NodeProto) -> NDArray[np.float32] | None:
    """Return what an Add adds to each channel of a convolution's result, (C,), or None."""
    if node.op_type != "Add":
        return None
    given = [graph.constants[name] for name in node.input if name in graph.constants]
    made = [name for name in node.input if name not in graph.constants]
    if len(given) != 1 or len(made) != 1 or graph.only_consumer(made[0], "Add") is not node:
        return None
    convolution = graph.made_by(made[0], "Conv")
    weight = graph.constants.get(convolution.input[1]) if convolution is not None else None
    if convolution is None or weight is None or weight.dtype != np.float32:
        return None
    if any(name and name not in graph.constants for name in convolution.input[2:]):
        return None
    channels, axes = weight.shape[0], weight.ndim
    shape = (1,) * (axes - given[0].ndim) + given[0].shape  # as broadcasting lines them up
    if len(shape) != axes or shape[1] not in (1, channels) or given[0].size != shape[1]:
        return None
    return np.broadcast_to(given[0].reshape(-1).astype(np.float32), (channels,))


PASSES: tuple[Pass, ...] = (
    with_constants_as_initializers,
    with_explicit_pads,
    with_biases_in_convolutions,
    with_activations_before_concat,
)
