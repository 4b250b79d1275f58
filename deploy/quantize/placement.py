"""Which nodes compute in 8 bits, and which tensors therefore need a scale."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import onnx

from deploy.errors import GraphError
from deploy.graph.activations import (
    ACTIVATIONS,
    activation_bounds,
    activations,
    fused_activation,
    fused_branch,
)
from deploy.graph.graph import MINIMUM_OPSET, Graph, attributes, opset
from deploy.graph.profile import Profile
from deploy.quantize.obstacles import obstacle
from deploy.quantize.sharing import odd_part, scale_root

QUANTIZED_ALREADY = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "DynamicQuantizeLinear")


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a graph is quantized.

    ``scale_of`` maps every quantized activation to the tensor whose range gives its scale: itself,
    but for what shares another's (sharing.py). A Relu or Clip of its own between 8-bit nodes is in
    neither list: what it takes is dequantized, and what it gives is quantized at once.
    """

    nodes: list[str] = field(default_factory=list)
    scale_of: dict[str, str] = field(default_factory=dict)
    reads: dict[str, frozenset[str]] = field(default_factory=dict)  # node -> dequantized inputs
    outputs: frozenset[str] = frozenset()  # those of the graph that are dequantized
    non_negative: frozenset[str] = frozenset()
    kept_float: dict[str, str] = field(default_factory=dict)  # node -> reason

    @property
    def observed(self) -> list[str]:
        """The tensors whose range is needed."""
        return list(dict.fromkeys(self.scale_of.values()))


def place(graph: Graph, profile: Profile, exclude: Collection[str] = frozenset()) -> Placement:
    """Return where to quantize: every node of QUANTIZABLE's types that 8 bits can compute.

    Whatever the profile and the nodes that are excluded, the tensors to observe are among those of
    the default profile without exclusions: one calibration serves all.

    Args:
        graph: a float graph.
        profile: the target's.
        exclude: names of nodes that shall stay float. What an 8-bit node makes or takes stays
            quantized all the same: a Conv gains by its weight, an Add by next to nothing.

    Raises:
        GraphError: the opset is too old, the graph is quantized already or has no convolution, or
            a name in ``exclude`` is not that of a node that can be kept float by itself.
    """
    _check(graph)
    kept: dict[str, str] = {}
    quantized: list[onnx.NodeProto] = []
    for node in graph.model.graph.node:
        if _is_fused(graph, node, kept):
            continue
        if reason := _reason_to_keep(graph, node, profile, exclude):
            kept[node.name] = reason
        else:
            quantized.append(node)
    _check_excluded(exclude, kept)
    reads = {node.name: frozenset(_quantized_inputs(graph, node, profile)) for node in quantized}
    scale_of: dict[str, str] = {}
    for node in quantized:
        names = [name for name in node.input if name in reads[node.name]]
        names += [_result(graph, node)] if profile.quantize_results else []
        scale_of |= {
            name: scale_root(graph, name, profile) for name in names if name not in scale_of
        }
    reads |= _reads_of_float_nodes(graph, kept, scale_of, profile)
    return Placement(
        nodes=[node.name for node in quantized],
        scale_of=scale_of,
        reads=reads,
        outputs=graph.outputs & scale_of.keys() if profile.quantize_results else frozenset(),
        non_negative=frozenset(name for name in scale_of if _is_non_negative(graph, name)),
        kept_float={
            node.name: kept[node.name]
            for node in graph.model.graph.node
            if node.name in kept
            and (node.name in exclude or not _lies_between(graph, node, reads, scale_of))
        },
    )


def _lies_between(
    graph: Graph,
    node: onnx.NodeProto,
    reads: Mapping[str, frozenset[str]],
    scale_of: Mapping[str, str],
) -> bool:
    """Say whether a Relu or Clip of its own stands between Q/DQ: after a DQ, before a Q."""
    if node.op_type not in ACTIVATIONS or node.output[0] not in scale_of:
        return False
    bounds = activation_bounds(graph, node)
    holds_zero = bounds is not None and bounds[0] <= 0 < bounds[1]
    return holds_zero and node.input[0] in reads.get(node.name, ())


def _result(graph: Graph, node: onnx.NodeProto) -> str:
    """Return the tensor that holds the node's result, after its fused activation."""
    activation = fused_activation(graph, node)
    name: str = (activation or node).output[0]
    return name


def _is_fused(graph: Graph, node: onnx.NodeProto, kept: dict[str, str]) -> bool:
    """Say whether ``node`` is an activation that a quantized node before it absorbs."""
    producer = graph.producers.get(node.input[0]) if node.input else None
    if producer is None or producer.name in kept:
        return False
    return fused_activation(graph, producer) is node


def _reason_to_keep(
    graph: Graph, node: onnx.NodeProto, profile: Profile, exclude: Collection[str]
) -> str | None:
    """Return why the node stays float, or None if it computes in 8 bits."""
    producer = graph.producers.get(node.input[0]) if node.input else None
    if producer is not None and fused_activation(graph, producer) is node:
        return f"the {producer.op_type} before it stays float"
    if node.op_type in profile.float_operators:
        return f"{node.op_type} computes in float on target {profile.name}"
    if profile.group_scale and _has_wide_groups(graph, node):
        return f"target {profile.name} has one weight scale for all channels of a group"
    if reason := obstacle(graph, node):
        return reason
    if node.op_type == "Concat" and (part := odd_part(graph, node, profile)) is not None:
        return f"its part {part} has the scale of what others take, too"
    return "the caller keeps it in float" if node.name in exclude else None


def _has_wide_groups(graph: Graph, node: onnx.NodeProto) -> bool:
    """Say whether a convolution has several groups, and these several output channels each."""
    group = attributes(node).get("group", 1) if node.op_type == "Conv" else 1
    weight = graph.constants.get(node.input[1]) if group > 1 else None
    return weight is not None and len(weight) > group


def _check_excluded(exclude: Collection[str], kept: dict[str, str]) -> None:
    if unknown := sorted(set(exclude) - kept.keys()):
        raise GraphError(
            f"{unknown[0]!r} cannot be kept in float: name a node of the graph, and of a Conv or "
            "Add with its activation the Conv or Add"
        )


def _quantized_inputs(graph: Graph, node: onnx.NodeProto, profile: Profile) -> list[str]:
    """Return the inputs that an 8-bit node takes dequantized."""
    names = activations(graph, node)
    fused = fused_branch(graph, node) if profile.fuse_add and node.op_type == "Add" else None
    return [name for name in names if name != fused]


def _reads_of_float_nodes(
    graph: Graph, kept: dict[str, str], scale_of: dict[str, str], profile: Profile
) -> dict[str, frozenset[str]]:
    """Return what nodes that stay float take dequantized: what 8-bit nodes give in 8 bits only.

    The result of another node that stays float they take as it is.
    """
    if not profile.quantize_results:
        return {}
    in_8_bits = {
        name
        for name in scale_of
        if name in graph.producers and not _float_source(graph, name, kept)
    }
    return {
        node.name: frozenset(in_8_bits.intersection(node.input))
        for node in graph.model.graph.node
        if node.name in kept
    }


def _float_source(graph: Graph, name: str, kept: dict[str, str]) -> bool:
    """Say whether a node that stays float makes the tensor."""
    return graph.producers[name].name in kept


def _is_non_negative(graph: Graph, name: str) -> bool:
    producer = graph.producers.get(name)
    if producer is None:
        return False
    if producer.op_type not in ACTIVATIONS:
        return False
    bounds = activation_bounds(graph, producer)
    return bounds is not None and bounds[0] >= 0


def _check(graph: Graph) -> None:
    ops = {node.op_type for node in graph.model.graph.node}
    if opset(graph.model) < MINIMUM_OPSET:
        raise GraphError(
            f"the graph's opset is {opset(graph.model)}: quantization needs {MINIMUM_OPSET} or "
            "later; export it anew or convert it with onnx.version_converter"
        )
    if ops & set(QUANTIZED_ALREADY):
        raise GraphError("the graph is quantized already: pass the float graph")
    if "Conv" not in ops:
        raise GraphError("the graph has no convolution: there is nothing to quantize")
