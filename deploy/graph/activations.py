"""What nodes do with activations: which ones they take, bound, fuse or pass on unchanged."""

import numpy as np
import onnx

from deploy.graph.graph import Graph, attributes

ACTIVATIONS = ("Relu", "Clip")  # fused into the node before them: the quantizer's range does it


SAME_SCALE = ("MaxPool", "Resize")  # their output may take the scale of their input


WITHIN = (b"nearest", b"linear")  # modes of a Resize whose results lie between its input's values


QUANTIZABLE = ("Conv", "Add", "AveragePool", "Concat", *SAME_SCALE)


def activations(graph: Graph, node: onnx.NodeProto) -> list[str]:
    """Return the node's inputs that are no constants."""
    return [name for name in dict.fromkeys(node.input) if name and name not in graph.constants]


def fused_activation(graph: Graph, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """Return the Relu or Clip that alone takes the result of a Conv or Add, or None.

    It is one whose work a quantization can do: zero, which every range holds, is within its bounds.
    """
    consumers = graph.consumers[node.output[0]]
    alone = len(consumers) == 1 and node.output[0] not in graph.outputs
    if node.op_type not in ("Conv", "Add") or not alone or consumers[0].op_type not in ACTIVATIONS:
        return None
    bounds = activation_bounds(graph, consumers[0])
    return consumers[0] if bounds is not None and bounds[0] <= 0 < bounds[1] else None


def activation_bounds(graph: Graph, node: onnx.NodeProto) -> tuple[float, float] | None:
    """Return the smallest and largest value of a Relu or Clip; None if they are computed."""
    if node.op_type == "Relu":
        return 0.0, np.inf
    bounds = [-np.inf, np.inf]
    for place, name in enumerate(node.input[1:3]):
        if name and name not in graph.constants:
            return None
        if name:
            bounds[place] = float(graph.constants[name].item())
    return bounds[0], bounds[1]


def keeps_scale(node: onnx.NodeProto) -> bool:
    """Say whether a node's results lie between its input's values, so that one scale fits both."""
    if node.op_type != "Resize":
        return node.op_type in SAME_SCALE
    given = attributes(node)
    beyond = given.get("coordinate_transformation_mode") == b"tf_crop_and_resize"
    return given.get("mode", b"nearest") in WITHIN and not beyond


def fused_branch(graph: Graph, node: onnx.NodeProto) -> str | None:
    """Return the input of an Add that is the result of a convolution for it alone, or None.

    The convolution can then add the other branch to its accumulator. Of two, it is the one at the
    end of the longer path (NVIDIA Model Optimizer, build_non_residual_input_map).
    """
    candidates = [
        name
        for name in activations(graph, node)
        if name in graph.producers
        and graph.producers[name].op_type == "Conv"
        and len(graph.consumers[name]) == 1
        and list(node.input).count(name) == 1
        and name not in graph.outputs
    ]
    return max(reversed(candidates), key=graph.depths.__getitem__, default=None)
