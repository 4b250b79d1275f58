"""Half precision inside, single precision at the borders.

Every node whose measured values fit a half (magnitude up to 65504, IEEE 754 binary16) computes in
it; the others stay FP32 between casts, each with its reason.
"""

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from deploy.graph import Graph

HALF_MAX = 65504.0
LEADING = "one of the first nodes, whose rounding all others amplify"
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
    graph: Graph, magnitudes: Mapping[str, float], leading_float: int = 0
) -> HalfGraph:
    """Return ``graph`` in half precision.

    Args:
        graph: a float graph; not changed.
        magnitudes: the largest absolute value measured in activations, by name. What a node passes
            through unchanged (max-pooling, resizing) needs no entry.
        leading_float: how many of the first nodes stay FP32.
    """
    kept = {
        n.name: reason
        for i, n in enumerate(graph.model.graph.node)
        if (reason := LEADING if i < leading_float else _obstacle(graph, n, magnitudes))
    }
    return HalfGraph(model=_Writer(graph, set(kept)).write(), kept_float=kept)


def convert_fp16_within(
    graph: Graph,
    magnitudes: Mapping[str, float],
    sqnr: Callable[[onnx.ModelProto], float],
    wanted: float,
) -> HalfGraph:
    """Return ``graph`` in half precision but for the fewest leading nodes that keep ``wanted``.

    What the first layers round, all later ones amplify. At most a quarter of the nodes stays FP32;
    where that does not suffice, none does, for it would be of no use.

    Args:
        graph: a float graph; not changed.
        magnitudes: as of :func:`convert_fp16`.
        sqnr: measures a half-precision graph's logits against the float graph's, in dB.
        wanted: the least that it shall give.
    """
    plain = convert_fp16(graph, magnitudes)
    if sqnr(plain.model) >= wanted:
        return plain
    most = len(graph.model.graph.node) // 4
    too_few, enough = 0, 1
    while (best := convert_fp16(graph, magnitudes, enough)) and sqnr(best.model) < wanted:
        if enough == most:
            return plain
        too_few, enough = enough, min(2 * enough, most)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        candidate = convert_fp16(graph, magnitudes, middle)
        if sqnr(candidate.model) >= wanted:
            best, enough = candidate, middle
        else:
            too_few = middle
    return best


def _obstacle(graph: Graph, node: onnx.NodeProto, magnitudes: Mapping[str, float]) -> str | None:
    """Return why the node must stay FP32, or None."""
    if node.op_type not in HALF_OPERATORS:
        return f"{node.op_type} has no half-precision form here"
    for name in [*node.input, *node.output]:
        value = magnitudes.get(name, 0.0)
        constant = graph.constants.get(name)
        if constant is not None and constant.dtype == np.float32 and constant.size:
            value = float(np.abs(constant).max())
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
        self.casts: set[str] = set()
        self.constants: dict[str, onnx.TensorProto] = {}

    def write(self) -> onnx.ModelProto:
        """Return the whole graph."""
        model = onnx.ModelProto()
        model.CopyFrom(self.graph.model)
        nodes = [copy for node in self.graph.model.graph.node for copy in self.copy(node)]
        for output in self.graph.outputs & self.half:
            nodes.append(self.cast(output + "_half", output, TensorProto.FLOAT))
        used = {name for node in nodes for name in node.input}
        kept = [t for t in self.graph.model.graph.initializer if t.name in used]
        del model.graph.node[:], model.graph.initializer[:], model.graph.value_info[:]
        model.graph.node.extend(nodes)
        model.graph.initializer.extend([*kept, *self.constants.values()])
        return model

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
                copy.output[i] = name + "_half"
        yield copy

    def converted(self, name: str, to_half: bool) -> Generator[onnx.NodeProto, None, str]:
        """Yield the cast of an activation unless it has the type already; return its name."""
        source = name + "_half" if name in self.graph.outputs and name in self.half else name
        if (name in self.half) == to_half:
            return source
        target = f"{name}_{'float16' if to_half else 'float32'}"
        if target not in self.casts:
            self.casts.add(target)
            yield self.cast(source, target, TensorProto.FLOAT16 if to_half else TensorProto.FLOAT)
        return target

    def half_constant(self, name: str) -> str:
        """Add the half-precision twin of a float constant; return the name to use."""
        value = self.graph.constants[name]
        if value.dtype != np.float32:
            return name
        half = f"{name}_float16"
        if half not in self.constants:
            self.constants[half] = numpy_helper.from_array(value.astype(np.float16), half)
        return half

    @staticmethod
    def cast(source: str, target: str, data_type: int) -> onnx.NodeProto:
        return helper.make_node("Cast", [source], [target], name=f"{target}/Cast", to=data_type)
