"""onnxsim, and a proof that it changed no number that matters."""

from collections.abc import Collection
from dataclasses import dataclass

import onnx
import onnxsim

from deploy.calibration.preprocess import Float32Array
from deploy.errors import GraphError
from deploy.export.trace import Difference, prove_equal, seeded_image
from deploy.graph.canonical import canonical
from deploy.graph.graph import (
    Graph,
    check_model,
    count_ops,
    with_node_names,
    without_large_constants,
)
from deploy.graph.metadata import read_metadata, set_metadata
from deploy.runtimes.onnxruntime import OnnxRunner
from deploy.store.memory import give_back

# A graph of nothing else, whose large constants all belong to convolutions, has none to be folded.
FOLDED = {"Conv", "Relu", "Clip", "Add", "MaxPool", "AveragePool", "Concat", "Resize"}


@dataclass(frozen=True, kw_only=True)
class SimplifiedGraph:
    """A simplified graph and the evidence for it."""

    model: onnx.ModelProto
    ops_before: dict[str, int]
    ops_after: dict[str, int]
    difference: Difference
    logits: Float32Array  # that it gives for the seeded image


def simplify_onnx(model: onnx.ModelProto) -> SimplifiedGraph:
    """Return ``model`` simplified; it computes the same on a seeded input to 1e-3 of the range.

    Raises:
        GraphError: onnxsim failed.
        ExportError: the simplified graph computes something else.
    """
    image = seeded_image(Graph(model).input_size)
    before = OnnxRunner(model)(image)
    give_back()
    try:
        simplified, checked = _simplified(model)
    except Exception as error:  # onnxsim raises what its C++ core throws
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise GraphError(f"onnxsim cannot simplify the graph: {reason}") from None
    if not checked:
        raise GraphError("onnxsim found its own result to differ: the graph is left as it was")
    set_metadata(simplified, read_metadata(model))  # onnxsim adds its own settings
    simplified = with_node_names(canonical(simplified))
    ops_before = count_ops(model)
    del model  # where the caller does not hold it either, as many parameters less
    give_back()
    check_model(simplified)
    give_back()
    after = OnnxRunner(simplified)(image)
    give_back()
    return SimplifiedGraph(
        model=simplified,
        ops_before=ops_before,
        ops_after=count_ops(simplified),
        difference=prove_equal(before, after, "the graph and its simplified form"),
        logits=after,
    )


def _simplified(model: onnx.ModelProto) -> tuple[onnx.ModelProto, bool]:
    """Return what onnxsim makes of a graph, and whether it found that right.

    onnxsim holds a graph several times over. Where no weight can be folded it is given them as
    inputs, and they are put back: the result is the same to the byte.
    """
    skeleton = without_large_constants(model)
    weights = {value.name for value in skeleton.graph.input} - {v.name for v in model.graph.input}
    if not _belong_to_convolutions(model, weights):
        simplified, checked = onnxsim.simplify(model)
        return simplified, checked
    simplified, checked = onnxsim.simplify(skeleton)
    graph = simplified.graph
    used = {name for node in graph.node for name in node.input}
    small = {tensor.name: tensor for tensor in graph.initializer}
    kept = [small.pop(t.name, t) for t in model.graph.initializer if t.name in used]
    kept += small.values()
    inputs = [value for value in graph.input if value.name not in weights]
    for field, values in ((graph.initializer, kept), (graph.input, inputs)):
        copies = list(values)
        del field[:]
        field.extend(copies)
    return simplified, checked


def _belong_to_convolutions(model: onnx.ModelProto, weights: Collection[str]) -> bool:
    """Say whether convolutions alone take some constants, and no node could be folded into one."""
    takers = [
        node.op_type == "Conv" and name != node.input[0]
        for node in model.graph.node
        for name in node.input
        if name in weights
    ]
    return all(takers) and {node.op_type for node in model.graph.node} <= FOLDED
