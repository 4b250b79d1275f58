"""Why a node cannot compute in 8 bits, whatever the target is."""

import onnx

from deploy.graph.activations import QUANTIZABLE, activation_bounds, activations
from deploy.graph.graph import Graph


def obstacle(graph: Graph, node: onnx.NodeProto) -> str | None:
    """Return why the node cannot compute in 8 bits, or None if it can."""
    if node.op_type not in QUANTIZABLE:
        return _foreign(graph, node)
    if node.input[0] in graph.constants and node.op_type not in ("Add", "Concat"):
        return "its input is constant (deploy simplify folds it)"
    if node.op_type == "MaxPool" and any(node.output[1:]):
        return "it gives indices, too"
    tensors = [*activations(graph, node), node.output[0]]
    if any(len(graph.shapes.get(name, ())) != 4 for name in tensors):
        return "its tensors are not all images of a fixed shape (N, C, H, W)"
    if node.op_type == "Conv" and any(name not in graph.constants for name in node.input[1:]):
        return "its weight or bias is no initializer (deploy simplify may make it one)"
    if node.op_type in ("Add", "Concat") and any(name in graph.constants for name in node.input):
        return "one of its inputs is constant"
    return None


def _foreign(graph: Graph, node: onnx.NodeProto) -> str:
    """Return why an operator that is none of QUANTIZABLE stays float."""
    if node.op_type == "BatchNormalization":
        return "it is no part of a convolution (deploy simplify folds it into one before it)"
    bounds = activation_bounds(graph, node) if node.op_type == "Clip" else None
    if bounds is not None and not bounds[0] <= 0 < bounds[1]:
        return f"0, which every 8-bit range holds, is not within its bounds {bounds}"
    return f"{node.op_type} has no 8-bit form here"
