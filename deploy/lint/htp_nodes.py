"""Whether Qualcomm's HTP computes a node in float, and why: what the rules in htp.py ask."""

import numpy as np
import onnx

from deploy.graph.activations import ACTIVATIONS, SAME_SCALE, activation_bounds
from deploy.graph.qdq import DEQUANTIZE, QUANTIZE, Affine, QdqGraph

# onnxruntime moves Q and DQ across these, so that one side is enough (qdq_propagation.cc).
CARRIERS = ("Identity", "MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")
# Chips without half precision take these between any others: floats only pass through.
LAYOUT = ("Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
# How many of the inputs are data, where not all are.
DATA = {"Clip": 1, "Conv": 1, "ConvTranspose": 2, "Gemm": 2, "Pad": 1, "Resize": 1, "Slice": 1}
WEIGHTED = ("ConvTranspose", "Gemm", "MatMul")  # a weight's type is its own
GIVE_INTEGERS = ("ArgMax", "ArgMin")


def in_float(graph: QdqGraph, node: onnx.NodeProto) -> str | None:
    """Return why a node computes in float, or None."""
    if node.op_type in (QUANTIZE, DEQUANTIZE, *LAYOUT) or _is_absorbed(graph, node):
        return None
    checks = (_float_weight, float_input, float_result, mixed_types, changed_scale)
    return next((problem for check in checks if (problem := check(graph, node))), None)


def float_input(graph: QdqGraph, node: onnx.NodeProto) -> str | None:
    """Return what a node takes in float, or None."""
    if node.op_type in CARRIERS and _quantized(graph, node) is not None:
        return None
    for name in _data(graph, node):
        if graph.dequantized(_origin(graph, name)) is None:
            return f"takes {name} in float: {node.op_type} computes in float"
    return None


def float_result(graph: QdqGraph, node: onnx.NodeProto) -> str | None:
    """Return where a node's result goes in float, or None."""
    is_bare = any(graph.made_by(name, QUANTIZE) is not None for name in node.input)
    if is_bare or node.op_type in GIVE_INTEGERS:
        return None
    name = _result(graph, node)
    takers = graph.consumers[name]
    is_output = name in graph.outputs
    if node.op_type in CARRIERS and len(takers) + is_output == 1 and _data_types(graph, node):
        return None
    if is_output:
        return f"result {name} leaves the graph before it is quantized"
    if others := [n.name for n in takers if n.op_type != QUANTIZE]:
        return f"result {name} is taken in float by {others[0]}"
    return None if len(takers) == 1 else f"result {name} is quantized {len(takers)} times"


def mixed_types(graph: QdqGraph, node: onnx.NodeProto) -> str | None:
    """Return the types that a node takes and gives if there are several, or None."""
    types = _data_types(graph, node)
    if (after := _quantized(graph, node)) is not None:
        types.add(str(after.dtype))
    return f"takes or gives {' and '.join(sorted(types))}" if len(types) > 1 else None


def changed_scale(graph: QdqGraph, node: onnx.NodeProto) -> str | None:
    """Return how a MaxPool or Resize changes the scale, or None."""
    if node.op_type not in SAME_SCALE:
        return None
    before, after = graph.dequantized(node.input[0]), graph.quantized(node.output[0])
    if before is None or after is None or np.array_equal(before.scale, after.scale):
        return None
    return f"changes scale {before.scale.max():.6g} to {after.scale.max():.6g}"


def bias_of(graph: QdqGraph, node: onnx.NodeProto) -> Affine | None:
    """Return how a convolution's bias was dequantized, or None if it is float or not there."""
    return graph.dequantized(node.input[2]) if len(node.input) > 2 else None


def _float_weight(graph: QdqGraph, node: onnx.NodeProto) -> str | None:
    if node.op_type != "Conv" or graph.dequantized(node.input[1]) is not None:
        return None
    return f"weight {node.input[1]} is float"


def _data(graph: QdqGraph, node: onnx.NodeProto) -> list[str]:
    """Return the node's inputs that are data, in float or dequantized."""
    names = [name for name in node.input[: DATA.get(node.op_type)] if name]
    return [
        name
        for name in dict.fromkeys(names)
        if graph.made_by(name, QUANTIZE) is None
        and (name not in graph.constants or graph.constants[name].dtype.kind == "f")
    ]


def _data_types(graph: QdqGraph, node: onnx.NodeProto) -> set[str]:
    """Return the types that a node's data were dequantized from."""
    names = _data(graph, node)[: 1 if node.op_type in WEIGHTED else None]
    found = [graph.dequantized(_origin(graph, name)) for name in names]
    return {str(affine.dtype) for affine in found if affine is not None}


def _origin(graph: QdqGraph, name: str) -> str:
    """Return the tensor that comes as ``name`` through nodes which carry it on."""
    producer = graph.producers.get(name)
    while producer is not None and producer.op_type in CARRIERS:
        name = producer.input[0]
        producer = graph.producers.get(name)
    return name


def _result(graph: QdqGraph, node: onnx.NodeProto) -> str:
    """Return a node's result behind its Relu or Clip and what alone carries it on.

    Of a Resize no activation is done by the quantization.
    """
    name = str(node.output[0])
    takes_activation = node.op_type not in ("Resize", *ACTIVATIONS)
    while len(takers := graph.consumers[name]) == 1 and name not in graph.outputs:
        is_activation = takers[0].op_type in ACTIVATIONS and takes_activation
        if not is_activation and takers[0].op_type not in CARRIERS:
            break
        takes_activation = takes_activation and not is_activation
        name = str(takers[0].output[0])
    return name


def _quantized(graph: QdqGraph, node: onnx.NodeProto) -> Affine | None:
    """Return how a node's result is quantized, or None."""
    return graph.quantized(_result(graph, node))


def _is_absorbed(graph: QdqGraph, node: onnx.NodeProto) -> bool:
    """Say whether a node is a Relu or Clip that the quantization after it does."""
    if node.op_type not in ACTIVATIONS:
        return False
    producer, affine = graph.producers.get(node.input[0]), _quantized(graph, node)
    if producer is None or producer.op_type == "Resize" or affine is None or not affine.per_tensor:
        return False
    bounds = activation_bounds(graph, node)
    alone = len(graph.consumers[node.input[0]]) == 1
    return alone and bounds is not None and affine.does_clip(*bounds)
