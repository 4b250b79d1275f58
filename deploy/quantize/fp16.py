"""Half precision inside, single precision at the borders.

Every node whose measured values fit a half (magnitude up to 65504, IEEE 754 binary16) computes in
it; the others stay FP32 between casts, each with its reason.
"""

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from deploy.graph.graph import Graph, rebuilt
from deploy.graph.names import Names

HALF_MAX = 65504.0
# Operators that ONNX defines for float16, with the inputs that must keep their type.
HALF_OPERATORS: dict[str, tuple[int, ...]] = {
    "Add": (),
    "AveragePool": (),
    "Clip": (),
    "Concat": (),
    "Conv": (),
    "GlobalAveragePool": (),
    "MaxPool": (),
    "Mul": (),
    "Relu": (),
    "Resize": (1, 2, 3),  # roi, scales, sizes
    "Sigmoid": (),
    "Sub": (),
    "Transpose": (),
}


@dataclass(frozen=True, kw_only=True)
class HalfGraph:
    """A half-precision graph, and why some of its nodes are not."""

    model: onnx.ModelProto
    kept_float: dict[str, str]  # node -> reason


def convert_fp16(
    graph: Graph, magnitudes: Mapping[str, float], keep: Mapping[str, str] | None = None
) -> HalfGraph:
    """Return ``graph`` in half precision.

    Args:
        graph: a float graph; not changed.
        magnitudes: the largest absolute value measured in activations, by name; NaN if it could not
            be measured. What fits in any case needs no entry.
        keep: nodes that stay FP32 whatever they compute, with the reason.
    """
    keep = keep or {}
    kept = {
        n.name: reason
        for n in graph.model.graph.node
        if (reason := keep.get(n.name) or _obstacle(graph, n, magnitudes))
    }
    return HalfGraph(model=_Writer(graph, set(kept)).write(), kept_float=kept)


def _obstacle(graph: Graph, node: onnx.NodeProto, magnitudes: Mapping[str, float]) -> str | None:
    """Return why the node must stay FP32, or None."""
    if node.op_type not in HALF_OPERATORS:
        return f"{node.op_type} has no half-precision form here"
    for name in [*node.input, *node.output]:
        value = magnitudes.get(name, 0.0)
        constant = graph.constants.get(name)
        if constant is not None and constant.dtype == np.float32 and constant.size:
            value = float(np.abs(constant).max())
            if constant.size == 1 and value and not np.float16(constant.item()):
                return f"{name} is {constant.item():g}, which a half cannot tell from 0"
        if np.isnan(value):
            return f"{name} was not measured, so that it may reach beyond {HALF_MAX:.0f}"
        if value > HALF_MAX:
            return f"{name} reaches {value:.6g}, beyond {HALF_MAX:.0f}"
    return None


class _Writer:
    """Builds one half-precision graph."""

    def __init__(self, graph: Graph, kept: set[str]) -> None:
        self.graph = graph
        self.kept = kept
        self.half = {
            name for n in graph.model.graph.node if n.name not in kept for name in n.output
        }
        self.names = Names(graph.model)
        self.casts: set[str] = set()
        self.constants: dict[str, onnx.TensorProto] = {}

    def write(self) -> onnx.ModelProto:
        """Return the whole graph."""
        nodes = [copy for node in self.graph.model.graph.node for copy in self.copy(node)]
        for output in self.graph.outputs & self.half:
            nodes.append(self.cast(self.as_half(output), output, TensorProto.FLOAT))
        used = {name for node in nodes for name in node.input}
        kept = [t for t in self.graph.model.graph.initializer if t.name in used]
        return rebuilt(self.graph.model, nodes, [*kept, *self.constants.values()])

    def copy(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """Yield the node, after the casts that its inputs need."""
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        to_half = node.name not in self.kept
        untouched = HALF_OPERATORS.get(node.op_type, ()) if to_half else ()
        for i, name in enumerate(node.input):
            if not name or i in untouched:
                continue
            if name in self.graph.constants:
                copy.input[i] = self.half_constant(name) if to_half else name
            elif to_half or name in self.half:
                copy.input[i] = yield from self.converted(name, to_half)
        for i, name in enumerate(node.output):
            if name in self.graph.outputs and to_half:
                copy.output[i] = self.as_half(name)
        yield copy

    def converted(self, name: str, to_half: bool) -> Generator[onnx.NodeProto, None, str]:
        """Yield the cast of an activation unless it has the type already; return its name."""
        is_output = name in self.graph.outputs and name in self.half
        source = self.as_half(name) if is_output else name
        if (name in self.half) == to_half:
            return source
        target = self.names.get(f"{name}_{'float16' if to_half else 'float32'}", "activation")
        if target not in self.casts:
            self.casts.add(target)
            yield self.cast(source, target, TensorProto.FLOAT16 if to_half else TensorProto.FLOAT)
        return target

    def half_constant(self, name: str) -> str:
        """Add the half-precision twin of a float constant; return the name to use."""
        value = self.graph.constants[name]
        if value.dtype != np.float32:
            return name
        half = self.names.get(f"{name}_float16", "constant")
        if half not in self.constants:
            self.constants[half] = numpy_helper.from_array(value.astype(np.float16), half)
        return half

    def as_half(self, output: str) -> str:
        """Return the name of an output of the graph before it is cast back."""
        return self.names.get(f"{output}_half", "output")

    def cast(self, source: str, target: str, data_type: int) -> onnx.NodeProto:
        name = self.names.get(f"{target}/Cast", "node")
        return helper.make_node("Cast", [source], [target], name=name, to=data_type)
