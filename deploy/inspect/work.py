"""What a graph's nodes compute, without running it: multiply-accumulates, and in which numbers."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx
from onnx import TensorProto

from deploy.graph.activations import activations, fused_activation, fused_branch
from deploy.graph.graph import (
    Graph,
    attributes,
    fixed_shapes,
    inferred_values,
    without_large_constants,
)
from deploy.graph.integers import DYNAMIC, FORMS, find_form
from deploy.graph.profile import Profile
from deploy.graph.qdq import DEQUANTIZE, QUANTIZE, QdqGraph

CONVERSIONS = (QUANTIZE, DEQUANTIZE, "DynamicQuantizeLinear", "Cast", "Constant", "Identity")
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
EIGHT_BITS = (TensorProto.UINT8, TensorProto.INT8)


@dataclass(frozen=True, kw_only=True)
class NodeWork:
    """What a node computes."""

    node: str
    operator: str
    macs: int | None  # 0 for what has none; None where shapes are unknown
    numbers: str  # "integers", "half" or "float"
    reason: str | None  # why float, in a quantized graph


def computing_nodes(graph: Graph) -> list[onnx.NodeProto]:
    """Return the nodes that take activations, but for conversions between numbers."""
    return [
        node
        for node in graph.model.graph.node
        if node.op_type not in CONVERSIONS and activations(graph, node)
    ]


def with_known_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy for shape inference, which knows standard operators and fixed batches only.

    Integer operators of onnxruntime become the float ones that they stand for, a batch of variable
    size becomes 1, and large constants become inputs: of them only the shape counts. The copy is
    not meant to be run.
    """
    copy = without_large_constants(model)
    for node in copy.graph.node:
        form = find_form(node)
        if node.domain == "com.microsoft" and form is not None:
            places = [*form.data, *([form.weight] if form.weight else [])]
            names = [node.input[place[0]] for place in places]
            del node.input[:]
            node.input.extend(names)
            node.op_type, node.domain = form.stands_for, ""
        elif node.op_type in (QUANTIZE, DEQUANTIZE):
            node.domain = ""
    for value in copy.graph.input:
        dims = value.type.tensor_type.shape.dim
        if len(dims) == 4 and not dims[0].dim_value:
            dims[0].dim_value = 1
    return copy


def describe_work(
    graph: QdqGraph, kept_float: frozenset[str], profile: Profile | None
) -> list[NodeWork]:
    """Return the work of every computing node, in the graph's order.

    A node computes in integers if its data and its weight come in 8 or 16 bits, and in a QDQ graph
    so does the Relu or Clip that alone takes its result. What a runtime makes of that is another
    question: ``deploy latency`` answers it.

    Args:
        graph: any graph.
        kept_float: nodes that its metadata name as kept float on purpose.
        profile: of the target that it was made for, if that is known.
    """
    values = inferred_values(with_known_shapes(graph.model))
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    shapes = fixed_shapes(values) | {k: v.shape for k, v in graph.constants.items()}
    is_quantized = any(
        node.op_type in (QUANTIZE, *FORMS, *DYNAMIC) for node in graph.model.graph.node
    )
    found: dict[str, NodeWork] = {}
    for node in computing_nodes(graph):
        reason = _why_float(graph, node, types, found, profile)
        half = types.get(node.output[0]) == TensorProto.FLOAT16
        if reason is not None and node.name in kept_float:
            reason = f"kept in float on purpose: {reason}"
        found[node.name] = NodeWork(
            node=node.name,
            operator=node.op_type,
            macs=_macs(node, shapes),
            numbers="half" if half else "float" if reason else "integers",
            reason=reason if is_quantized else None,
        )
    return list(found.values())


def _why_float(
    graph: QdqGraph,
    node: onnx.NodeProto,
    types: Mapping[str, int],
    found: Mapping[str, NodeWork],
    profile: Profile | None,
) -> str | None:
    """Return why a node computes in float, or None if it does so in integers."""
    if find_form(node) or node.op_type in DYNAMIC:
        return None
    if profile is not None and node.op_type in profile.float_operators:
        return f"{node.op_type} computes in float on target {profile.name}"
    names = activations(graph, node)
    if types.get(names[0]) in EIGHT_BITS:
        return None  # MaxPool, Resize, Reshape … of integers
    producer = graph.producers.get(names[0])
    if producer is not None and fused_activation(graph, producer) is node:
        before = found.get(producer.name)
        if before is not None and before.numbers == "integers":
            return None
        return f"the {producer.op_type} before it does"
    fuses = profile is not None and profile.fuse_add and node.op_type == "Add"
    fused = fused_branch(graph, node) if fuses else None
    in_float = [n for n in names if not _is_dequantized(graph, n) and n != fused]
    if in_float:
        return f"takes {in_float[0]} in float"
    if node.op_type in WEIGHTED and not _is_dequantized(graph, node.input[1]):
        return f"its weight {node.input[1]} is float"
    return None


def _is_dequantized(graph: QdqGraph, name: str) -> bool:
    """Say whether a tensor comes from a DequantizeLinear."""
    return graph.made_by(name, DEQUANTIZE) is not None


def _macs(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Return a node's multiply-accumulates; a bias counts nothing."""
    form = find_form(node)
    operator = form.stands_for if form else DYNAMIC.get(node.op_type, node.op_type)
    if operator not in WEIGHTED:
        return 0
    place = 3 if form else 1  # of the weight, in all forms that have one
    data, weight, result = (
        shapes.get(name) for name in (node.input[0], node.input[place], node.output[0])
    )
    if data is None or weight is None or result is None:
        return None
    if operator == "Conv":
        return math.prod(result) * math.prod(weight[1:])
    if operator == "ConvTranspose":
        return math.prod(data) * math.prod(weight[1:])
    transposed = operator == "Gemm" and attributes(node).get("transA", 0)
    return math.prod(result) * data[0 if transposed else -1]


def parameters(graph: QdqGraph) -> int:
    """Return how many numbers the nodes compute with: no scales, zero points, shapes or bounds."""
    names = {name for node in graph.model.graph.node for name in _parameter_names(graph, node)}
    return sum(graph.constants[name].size for name in names if name in graph.constants)


def _parameter_names(graph: QdqGraph, node: onnx.NodeProto) -> Iterator[str]:
    form = find_form(node)
    if form is not None:
        places = [place[0] for place in (*form.data, *([form.weight] if form.weight else []))]
        yield from (node.input[place] for place in places)
        if form.bias is not None and len(node.input) > form.bias:
            yield node.input[form.bias]
    elif node.op_type == DEQUANTIZE:
        yield node.input[0]
    elif node.op_type in (QUANTIZE, "Resize", "Clip", "Reshape", "Pad", "Slice", "Expand", "Tile"):
        return  # these are scales, sizes and bounds
    else:
        kinds = (name for name in node.input if name in graph.constants)
        yield from (name for name in kinds if graph.constants[name].dtype.kind == "f")
        if node.op_type in DYNAMIC:
            yield node.input[1]
