"""onnxsim, and a proof that it changed no number that matters."""

from dataclasses import dataclass

import numpy as np
import onnx
import onnxsim

from deploy.errors import GraphError
from deploy.export.trace import Difference, prove_equal
from deploy.graph.canonical import canonical
from deploy.graph.graph import Graph, count_ops, with_node_names
from deploy.graph.metadata import read_metadata, set_metadata
from deploy.runtimes.onnxruntime import OnnxRunner


@dataclass(frozen=True, kw_only=True)
class SimplifiedGraph:
    """A simplified graph and the evidence for it."""

    model: onnx.ModelProto
    ops_before: dict[str, int]
    ops_after: dict[str, int]
    difference: Difference


def simplify_onnx(model: onnx.ModelProto) -> SimplifiedGraph:
    """Return ``model`` simplified; it computes the same on a seeded input to 1e-3 of the range.

    Raises:
        GraphError: onnxsim failed.
        ExportError: the simplified graph computes something else.
    """
    try:
        simplified, checked = onnxsim.simplify(model)
    except Exception as error:  # onnxsim raises what its C++ core throws
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise GraphError(f"onnxsim cannot simplify the graph: {reason}") from None
    if not checked:
        raise GraphError("onnxsim found its own result to differ: the graph is left as it was")
    set_metadata(simplified, read_metadata(model))  # onnxsim adds its own settings
    simplified = with_node_names(canonical(simplified))
    onnx.checker.check_model(simplified)
    size = Graph(simplified).input_size
    image = np.random.default_rng(0).standard_normal((1, 3, *size), dtype=np.float32)
    before, after = OnnxRunner(model)(image), OnnxRunner(simplified)(image)
    return SimplifiedGraph(
        model=simplified,
        ops_before=count_ops(model),
        ops_after=count_ops(simplified),
        difference=prove_equal(before, after, "the graph and its simplified form"),
    )
