"""What is in an ONNX file: operators, work, precision, scales. Nothing is run."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx

from deploy.errors import DeployError, GraphError
from deploy.graph.canonical import canonical
from deploy.graph.graph import Graph, count_ops, opset, with_node_names
from deploy.graph.half import has_half
from deploy.graph.integers import DYNAMIC, find_form
from deploy.graph.metadata import read_metadata
from deploy.graph.qdq import DEQUANTIZE, QUANTIZE, QdqGraph, with_initializers
from deploy.graph.reading import read_graph
from deploy.inspect.scales import QuantizedTensor, Scales, WeightForm, describe_weight
from deploy.inspect.suspicions import Suspicion, find_suspicions
from deploy.inspect.work import NodeWork, describe_work, parameters
from deploy.lint import Finding
from deploy.store.artifacts import DEFAULT_OUT, Network, resolve_network
from deploy.targets import DEFAULT_TARGET, GRAPHS, PROFILES, find_profile, lint


@dataclass(frozen=True, kw_only=True)
class Value:
    """An input or output of a graph."""

    name: str
    type: str
    shape: list[int | str]  # a name, or "?", where it is not fixed


@dataclass(frozen=True, kw_only=True)
class Before:
    """The float graph that a quantized one lies beside."""

    path: Path
    size_bytes: int
    operators: dict[str, int]
    is_source: bool | None  # whether the other was made from it; None if it does not tell


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What is in a file."""

    path: Path
    size_bytes: int
    form: str  # "float32", "float16", "QDQ", "QOperator" or "dynamic"
    opset: int
    producer: str
    inputs: list[Value]
    outputs: list[Value]
    metadata: dict[str, str]
    operators: dict[str, int]
    before: Before | None
    parameters: int
    nodes: list[NodeWork]  # those that compute
    activations: list[QuantizedTensor]
    weights: list[WeightForm]
    unreadable_scales: int
    suspicions: list[Suspicion]
    target: str | None  # whose rules the findings are of; None for a float graph
    findings: list[Finding]
    unchecked: str | None  # why there are no findings to be had

    @property
    def macs(self) -> int | None:
        """Multiply-accumulates for one image; None if a shape is unknown."""
        macs = [node.macs for node in self.nodes]
        return None if None in macs else sum(value or 0 for value in macs)

    def share(self, numbers: str, *, of_work: bool) -> float | None:
        """Return the share of the nodes, or of their work, that is done in these numbers."""
        weights = [(node.macs or 0) if of_work else 1 for node in self.nodes]
        if not sum(weights) or (of_work and self.macs is None):
            return None
        pairs = zip(self.nodes, weights, strict=True)
        return sum(weight for node, weight in pairs if node.numbers == numbers) / sum(weights)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        shares = {
            numbers: {
                "nodes": self.share(numbers, of_work=False),
                "macs": self.share(numbers, of_work=True),
            }
            for numbers in ("integers", "half", "float")
        }
        return asdict(self) | {"macs": self.macs, "shares": shares}


def inspect(target: str, *, rules: str | None = None, out: Path = DEFAULT_OUT) -> list[Inspection]:
    """Describe an ONNX file of any tool, or every graph of a variant in ``out``.

    Args:
        target: a path or a variant's id.
        rules: the target whose rules a QDQ graph is held against, by default the one that its
            metadata name, else onnxruntime on x86.
        out: the folder of the artifacts.

    Raises:
        DeployError: there is no such target, or no graph.
        GraphError: a file is no valid graph.
    """
    if rules is not None:
        find_profile(rules)
    return [_inspect_file(path, rules) for path in graph_paths(resolve_network(target, out))]


def graph_paths(target: Network) -> list[Path]:
    """Return the file that a target is, or the graphs that a variant has; raises DeployError."""
    if target.given is not None:
        return [target.given]
    paths = [target.graph(name) for name in GRAPHS if target.graph(name).is_file()]
    if not paths:
        raise DeployError(
            f"{target.name} has no graph in {target.folder}: run 'deploy export {target.name}'"
        )
    return paths


def _inspect_file(path: Path, rules: str | None) -> Inspection:
    model = read_graph(path)
    metadata = read_metadata(model)
    graph = QdqGraph(with_initializers(with_node_names(model)))
    form, scales = find_form_of(model), Scales(graph)
    is_quantized = form not in ("float32", "float16")
    target = (rules or metadata.get("target", DEFAULT_TARGET)) if is_quantized else None
    findings, unchecked = _lint(model, target)
    return Inspection(
        path=path,
        size_bytes=path.stat().st_size,
        form=form,
        opset=opset(model),
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        inputs=[_value(v) for v in model.graph.input if v.name not in graph.constants],
        outputs=[_value(v) for v in model.graph.output],
        metadata=metadata,
        operators=count_ops(model),
        before=_find_float(path, metadata) if form != "float32" else None,
        parameters=parameters(graph),
        nodes=describe_work(graph, _kept_float(metadata), PROFILES.get(metadata.get("target", ""))),
        activations=scales.activations,
        weights=[describe_weight(weight) for weight in scales.weights],
        unreadable_scales=scales.unreadable,
        suspicions=find_suspicions(scales),
        target=target,
        findings=findings,
        unchecked=unchecked,
    )


def find_form_of(model: onnx.ModelProto) -> str:
    """Return in which form a graph is quantized, or its precision if it is not."""
    ops = {node.op_type for node in model.graph.node}
    if any(find_form(node) for node in model.graph.node):
        return "QOperator"
    if ops & {*DYNAMIC, "DynamicQuantizeLinear"}:
        return "dynamic"
    if ops & {QUANTIZE, DEQUANTIZE}:
        return "QDQ"
    return "float16" if has_half(model) else "float32"


def _lint(model: onnx.ModelProto, target: str | None) -> tuple[list[Finding], str | None]:
    """Return the rules that a quantized graph breaks, or why it cannot be checked."""
    if target is None:
        return [], None
    try:
        return lint(model, target), None
    except GraphError as error:
        return [], str(error)


def _find_float(path: Path, metadata: dict[str, str]) -> Before | None:
    """Return the float graph in the same folder, if there is one that can be read."""
    beside = path.with_name("fp32.onnx")
    if beside == path or not beside.is_file():
        return None
    try:
        model = read_graph(beside)
    except GraphError:
        return None
    source = metadata.get("source_sha256")
    return Before(
        path=beside,
        size_bytes=beside.stat().st_size,
        operators=count_ops(model),
        # node names are part of the hash, and given where they were missing
        is_source=source == Graph(with_node_names(canonical(model))).sha256 if source else None,
    )


def _kept_float(metadata: dict[str, str]) -> frozenset[str]:
    try:
        return frozenset(map(str, json.loads(metadata.get("kept_float", "[]"))))
    except (ValueError, TypeError):
        return frozenset()  # the linter says so


def _value(value: onnx.ValueInfoProto) -> Value:
    tensor = value.type.tensor_type
    names = {number: name.lower() for name, number in onnx.TensorProto.DataType.items()}
    names[onnx.TensorProto.FLOAT] = "float32"
    shape: Sequence[int | str] = [d.dim_value or d.dim_param or "?" for d in tensor.shape.dim]
    return Value(name=value.name, type=names.get(tensor.elem_type, "?"), shape=list(shape))
