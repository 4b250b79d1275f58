"""What a runtime makes of a quantized graph: which nodes really compute in integers."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import onnx

from deploy.graph import Graph
from deploy.lint.qdq import DEQUANTIZE, QUANTIZE
from deploy.runtime import (
    FLOAT_CONVOLUTIONS,
    INTEGER_CONVOLUTIONS,
    OnnxRunner,
    OpenVinoLayer,
    OpenVinoRunner,
)
from deploy.work import DYNAMIC, FORMS

CONVERSIONS = (QUANTIZE, DEQUANTIZE, "DynamicQuantizeLinear", "Cast")
LAYOUT = ("ReorderInput", "ReorderOutput", "Transpose", "Reshape", "Squeeze", "Unsqueeze")
# Layers of OpenVINO that compute nothing, and those that convert.
OPENVINO_PASSIVE = ("Const", "Input", "Output", "Reshape", "Parameter", "Result")
OPENVINO_CONVERSIONS = ("Reorder", "Convert", "FakeQuantize")


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a runtime executes a graph."""

    integer_convolutions: int
    float_convolutions: tuple[str, ...]  # their names
    float_nodes: dict[str, tuple[str, ...]]  # operator -> names; of those that are no convolutions
    conversions: int  # between float and integers, at every run

    @property
    def convolutions(self) -> int:
        """How many there are."""
        return self.integer_convolutions + len(self.float_convolutions)


def describe_execution(runner: OnnxRunner | OpenVinoRunner) -> Execution:
    """Return what of a graph a runtime computes in integers and what in float, by name."""
    if isinstance(runner, OpenVinoRunner):
        return _of_layers(runner.layers())
    return _of_graph(Graph(runner.optimized()))


def _of_graph(graph: Graph) -> Execution:
    """Describe onnxruntime's optimized graph.

    A node computes in integers if it is an operator of integers, or takes the result of one.
    """
    integers = {
        value.name
        for value in graph.model.graph.input
        if value.type.tensor_type.elem_type in (onnx.TensorProto.UINT8, onnx.TensorProto.INT8)
    }
    in_float: list[tuple[str, str]] = []
    counts: Counter[str] = Counter()
    for node in graph.model.graph.node:
        counts[node.op_type] += 1
        is_integer = node.op_type in (QUANTIZE, *FORMS, *DYNAMIC, *INTEGER_CONVOLUTIONS)
        passes_on = node.op_type not in CONVERSIONS and node.input and node.input[0] in integers
        if is_integer or passes_on:
            integers.update(node.output)
        elif node.op_type not in (*CONVERSIONS, *LAYOUT):
            in_float.append((node.op_type, node.name))
    return Execution(
        integer_convolutions=sum(counts[name] for name in INTEGER_CONVOLUTIONS),
        float_convolutions=tuple(name for op, name in in_float if op in FLOAT_CONVOLUTIONS),
        float_nodes=_by_kind((op, name) for op, name in in_float if op not in FLOAT_CONVOLUTIONS),
        conversions=sum(counts[name] for name in CONVERSIONS),
    )


def _of_layers(layers: list[OpenVinoLayer]) -> Execution:
    """Describe what OpenVINO compiled; a Subgraph is several elementwise operators in one."""
    convolutions = [layer for layer in layers if layer.type == "Convolution"]
    passive = (*OPENVINO_PASSIVE, *OPENVINO_CONVERSIONS, "Convolution")
    return Execution(
        integer_convolutions=sum(layer.precision == "i8" for layer in convolutions),
        float_convolutions=tuple(layer.name for layer in convolutions if layer.precision != "i8"),
        float_nodes=_by_kind(
            (layer.type, layer.name)
            for layer in layers
            if layer.type not in passive and layer.precision.startswith(("f", "bf"))
        ),
        conversions=sum(layer.type in OPENVINO_CONVERSIONS for layer in layers),
    )


def _by_kind(pairs: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for kind, name in pairs:
        found[kind] = (*found.get(kind, ()), name)
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))
