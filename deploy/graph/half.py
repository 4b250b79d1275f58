"""Half precision as an accelerator computes it, on a runtime that has none.

onnxruntime's CPU kernels have no float16 convolution: it runs such a graph in float32 and drops the
roundings in between (InsertedPrecisionFreeCast), so that neither the rounding of activations nor
an overflow would show in the measured accuracy. Here each float16 result is computed in float32, as
accelerators accumulate, and then rounded by a pair of explicit casts, which onnxruntime keeps.
"""

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from deploy.graph.graph import Graph, inferred_values, rebuilt
from deploy.graph.names import Names

# Their results are values of their inputs (or of constants that are halves): nothing to round.
EXACT = ("Clip", "Concat", "Identity", "MaxPool", "Relu", "Transpose")


def has_half(model: onnx.ModelProto) -> bool:
    """Say whether any parameter of the graph is a half, or any tensor is cast to one."""
    if any(t.data_type == TensorProto.FLOAT16 for t in model.graph.initializer):
        return True
    return any(
        a.i == TensorProto.FLOAT16 if a.name == "to" else a.t.data_type == TensorProto.FLOAT16
        for node in model.graph.node
        for a in node.attribute
        if (node.op_type, a.name) == ("Cast", "to") or a.type == onnx.AttributeProto.TENSOR
    )


def emulate_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a float32 graph that rounds wherever ``model`` holds a float16 activation."""
    values = inferred_values(model)
    half = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT16}
    graph, names = Graph(model), Names(model)
    nodes = (made for node in model.graph.node for made in _emulated(graph, node, half, names))
    emulated = rebuilt(model, nodes, map(_single, model.graph.initializer))
    for value in [*emulated.graph.input, *emulated.graph.output]:
        if value.name in half:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    return emulated


def _emulated(
    graph: Graph, node: onnx.NodeProto, half: set[str], names: Names
) -> Iterator[onnx.NodeProto]:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    for attribute in copy.attribute:
        if attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
            attribute.i = TensorProto.FLOAT
        if attribute.type == onnx.AttributeProto.TENSOR:
            attribute.t.CopyFrom(_single(attribute.t))
    rounded = [
        i
        for i, name in enumerate(node.output)
        if name in half and node.op_type not in EXACT and not _rounded_later(graph, node)
    ]
    # Relu and Clip round what the node before them left to them: rounding is monotone, and their
    # bounds are halves, so that either order gives the same.
    if node.op_type in ("Relu", "Clip") and node.output[0] in half:
        producer = graph.producers.get(node.input[0])
        rounded = [0] if producer is not None and _rounded_later(graph, producer) else []
    for i in rounded:
        copy.output[i] = names.get(f"{node.output[i]}_exact")
    yield copy
    for i in rounded:
        name = node.output[i]
        to_half, to_single = TensorProto.FLOAT16, TensorProto.FLOAT
        exact, rounding = copy.output[i], names.get(f"{name}_rounded")
        yield helper.make_node("Cast", [exact], [rounding], to=to_half)
        yield helper.make_node("Cast", [rounding], [name], to=to_single)


def _rounded_later(graph: Graph, node: onnx.NodeProto) -> bool:
    """Say whether a Relu or Clip alone takes the node's result, which keeps the two fused."""
    consumers = graph.consumers[node.output[0]]
    return (
        node.op_type not in EXACT
        and len(consumers) == 1
        and consumers[0].op_type in ("Relu", "Clip")
        and node.output[0] not in graph.outputs
    )


def _single(tensor: TensorProto) -> TensorProto:
    """Return a half-precision constant in single precision, any other as it is."""
    if tensor.data_type != TensorProto.FLOAT16:
        return tensor
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
