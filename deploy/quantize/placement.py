"""Which nodes compute in 8 bits, and which tensors therefore need a scale."""

from dataclasses import dataclass, field

import onnx

from deploy.errors import GraphError
from deploy.graph import MINIMUM_OPSET, Graph, opset

ACTIVATIONS = ("Relu", "Clip")  # fused into the node before them: the quantizer's range does it
SAME_SCALE = ("MaxPool", "Resize")  # their output takes values of their input
QUANTIZABLE = ("Conv", "Add", *SAME_SCALE)
QUANTIZED_ALREADY = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "DynamicQuantizeLinear")


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a graph is quantized.

    ``scale_of`` maps every quantized activation to the tensor whose range gives its scale: itself,
    but for what a max-pooling or a resize passes through.
    """

    nodes: list[str] = field(default_factory=list)
    scale_of: dict[str, str] = field(default_factory=dict)
    non_negative: frozenset[str] = frozenset()
    kept_float: dict[str, str] = field(default_factory=dict)  # node -> reason

    @property
    def observed(self) -> list[str]:
        """The tensors whose range is needed."""
        return list(dict.fromkeys(self.scale_of.values()))


def place(graph: Graph) -> Placement:
    """Return where to quantize: every Conv, Add, MaxPool and Resize that 8 bits can compute.

    Raises:
        GraphError: the opset is too old, or the graph is quantized already or has no convolution.
    """
    _check(graph)
    nodes: list[str] = []
    kept: dict[str, str] = {}
    scale_of: dict[str, str] = {}
    for node in graph.model.graph.node:
        if _is_fused(graph, node, kept):
            continue
        if reason := _obstacle(graph, node):
            kept[node.name] = reason
            continue
        nodes.append(node.name)
        source, result = node.input[0], _result(graph, node)
        for name in activations(graph, node):
            scale_of.setdefault(name, name)
        scale_of[result] = scale_of[source] if node.op_type in SAME_SCALE else result
    return Placement(
        nodes=nodes,
        scale_of=scale_of,
        non_negative=frozenset(name for name in scale_of if _is_non_negative(graph, name)),
        kept_float=kept,
    )


def activations(graph: Graph, node: onnx.NodeProto) -> list[str]:
    """Return the node's inputs that are no constants."""
    return [name for name in dict.fromkeys(node.input) if name and name not in graph.constants]


def fused_activation(graph: Graph, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """Return the Relu or Clip that alone takes the result of a Conv or Add, or None."""
    consumers = graph.consumers[node.output[0]]
    alone = len(consumers) == 1 and node.output[0] not in graph.outputs
    if node.op_type in ("Conv", "Add") and alone and consumers[0].op_type in ACTIVATIONS:
        return consumers[0]
    return None


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


def _obstacle(graph: Graph, node: onnx.NodeProto) -> str | None:
    """Return why the node cannot compute in 8 bits, or None if it can."""
    if node.op_type not in QUANTIZABLE:
        return f"{node.op_type} has no 8-bit form here"
    tensors = [*activations(graph, node), node.output[0]]
    if any(len(graph.shapes.get(name, ())) != 4 for name in tensors):
        return "its tensors are not all images of a fixed shape (N, C, H, W)"
    if node.op_type == "Conv" and any(name not in graph.constants for name in node.input[1:]):
        return "its weight or bias is no initializer (deploy simplify may make it one)"
    if node.op_type == "Add" and len(tensors) < 3:
        return "one of its inputs is constant"
    return None


def _is_non_negative(graph: Graph, name: str) -> bool:
    producer = graph.producers.get(name)
    if producer is None:
        return False
    if producer.op_type == "Clip":
        low = graph.constants.get(producer.input[1]) if len(producer.input) > 1 else None
        return low is not None and float(low) >= 0
    return producer.op_type == "Relu"


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
