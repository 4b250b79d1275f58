"""Calibrate a target, or reuse its calibration, and write its FP16 and INT8 graphs."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx

from calibration import (
    Calibration,
    CalibrationError,
    CalibrationKey,
    Fit,
    Method,
    RangeConfig,
    choose_method,
    choose_range,
    merge_calibrations,
    observe,
    read_calibration,
)
from calibration.observe import SAMPLES
from deploy.artifacts import Target, int8_name
from deploy.calibration_source import CalibrationSource
from deploy.files import write_whole
from deploy.graph import (
    Graph,
    graph_sha256,
    read_graph,
    read_metadata,
    set_metadata,
    with_node_names,
)
from deploy.progress import Progress
from deploy.quantize.fp16 import convert_fp16
from deploy.quantize.int8 import quantize_int8
from deploy.quantize.placement import Placement, place
from deploy.runtime import OnnxRunner, default_threads
from deploy.targets import DEFAULT_TARGET, PROFILES, Profile


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A float graph that is ready to be quantized."""

    target: Target
    graph: Graph
    placement: Placement  # of the default profile: it observes what any needs
    calibration: Calibration
    reused: bool  # the calibration was on disk already


@dataclass(frozen=True, kw_only=True)
class CalibrationFile:
    """Statistics that are on disk."""

    target: str
    path: Path
    images: int
    tensors: int
    reused: bool  # they were there already

    @classmethod
    def of(cls, prepared: Prepared, path: Path, *, reused: bool) -> "CalibrationFile":
        """Describe the calibration of a graph."""
        return cls(
            target=prepared.target.name,
            path=path,
            images=len(prepared.calibration.key.images),
            tensors=len(prepared.calibration.tensors),
            reused=reused,
        )


@dataclass(frozen=True, kw_only=True)
class QuantizedGraph:
    """What a quantization wrote."""

    target: str
    precision: str
    path: Path
    size_bytes: int
    quantized_nodes: int
    kept_float: dict[str, str]  # node -> reason
    calibration_reused: bool
    methods: dict[str, str] = field(default_factory=dict)  # tensor -> what `auto` chose for it


def prepare(
    target: Target, source: CalibrationSource, fit: Fit | None, progress: Progress
) -> Prepared:
    """Read a target's float graph and calibrate it, unless its calibration is there already.

    Raises:
        GraphError: the graph cannot be read or quantized.
        CalibrationError: its statistics cannot be collected, or an old file cannot be read.
    """
    graph, placement = _read_float_graph(target)
    fit = fit or Fit(read_metadata(graph.model).get("fit", Fit.CROP.value))
    key = CalibrationKey(
        graph_sha256=graph_sha256(graph.model),
        fit=fit,
        images=source.images,
        samples_per_tensor=SAMPLES,
    )
    path = source.path(target)
    if path.is_file():
        found = read_calibration(path)
        if found.key == key:
            return Prepared(
                target=target, graph=graph, placement=placement, calibration=found, reused=True
            )

    tensors = observe(
        graph.model,
        {name: graph.shapes[name] for name in placement.observed},
        source.inputs(fit, graph.input_size, progress, f"calibrate {target.name}"),
        non_negative=placement.non_negative,
        threads=default_threads(),
    )
    calibration = Calibration(key=key, tensors=tensors)
    write_whole(path, calibration.to_json())
    return Prepared(
        target=target, graph=graph, placement=placement, calibration=calibration, reused=False
    )


def prepare_with(
    target: Target, parts: Sequence[tuple[str, Calibration]], fit: Fit | None = None
) -> Prepared:
    """Read a target's float graph and join it with a calibration, or with the parts of one.

    Raises:
        GraphError: the graph cannot be read or quantized.
        CalibrationError: a part, by its name, is of another graph or fit, or cannot be merged.
    """
    graph, placement = _read_float_graph(target)
    sha256 = graph_sha256(graph.model)
    for name, part in parts:
        if part.key.graph_sha256 != sha256:
            raise CalibrationError(
                f"{name} is the calibration of another graph than {target.fp32}: run 'deploy "
                f"calibrate {target.given or target.name}'"
            )
        if fit and part.key.fit != fit:
            raise CalibrationError(f"{name} was made with fit {part.key.fit}, not {fit}")
        if lacking := sorted(set(placement.observed) - part.tensors.keys()):
            raise CalibrationError(f"{name} lacks tensor {lacking[0]}: calibrate anew")
    calibration = merge_calibrations(parts)
    return Prepared(
        target=target, graph=graph, placement=placement, calibration=calibration, reused=True
    )


def _read_float_graph(target: Target) -> tuple[Graph, Placement]:
    graph = Graph(with_node_names(read_graph(target.fp32)))
    return graph, place(graph, PROFILES[DEFAULT_TARGET])


def write_fp16(prepared: Prepared, progress: Progress) -> QuantizedGraph:
    """Write ``fp16.onnx``; nodes whose measured values do not fit a half stay FP32."""
    with progress.step(f"fp16 {prepared.target.name}"):
        tensors = prepared.calibration.tensors
        magnitudes = {
            name: max(abs(tensors[root].minimum), abs(tensors[root].maximum))
            for name, root in prepared.placement.scale_of.items()
        }
        half = convert_fp16(prepared.graph, magnitudes)
        count = len(prepared.graph.model.graph.node) - len(half.kept_float)
        return _write(prepared, "fp16", half.model, count, half.kept_float, {"precision": "fp16"})


def write_int8(
    prepared: Prepared,
    config: RangeConfig,
    progress: Progress,
    profile: Profile = PROFILES[DEFAULT_TARGET],
    exclude: Collection[str] = frozenset(),
) -> QuantizedGraph:
    """Write the INT8 graph for a profile, with ranges chosen by ``config``.

    Raises:
        GraphError: a node in ``exclude``, which shall stay float, cannot.
    """
    name = int8_name(profile.name)
    with progress.step(f"{name} {prepared.target.name}"):
        placement = place(prepared.graph, profile, exclude)
        tensors = {tensor: prepared.calibration.tensors[tensor] for tensor in placement.observed}
        methods = {tensor: choose_method(found, config) for tensor, found in tensors.items()}
        ranges = {
            tensor: choose_range(found, replace(config, method=methods[tensor]))
            for tensor, found in tensors.items()
        }
        model = quantize_int8(prepared.graph, placement, ranges, profile)
        metadata = {
            "precision": "int8",
            "target": profile.name,
            "calibration_method": config.method.value,
            "calibration_images": json.dumps([i.sha256 for i in prepared.calibration.key.images]),
        }
        chosen = {}
        if config.method == Method.AUTO:
            chosen = {tensor: method.value for tensor, method in methods.items()}
            metadata["calibration_methods"] = json.dumps(chosen)
        if exclude:
            metadata["kept_float"] = json.dumps(sorted(exclude))
        count, kept = len(placement.nodes), placement.kept_float
        return replace(_write(prepared, name, model, count, kept, metadata), methods=chosen)


def _write(
    prepared: Prepared,
    name: str,
    model: onnx.ModelProto,
    quantized_nodes: int,
    kept_float: dict[str, str],
    metadata: dict[str, str],
) -> QuantizedGraph:
    """Check a graph, see that it loads, write it whole, and describe it."""
    source = prepared.graph.model
    set_metadata(
        model,
        {
            **read_metadata(source),
            "fit": prepared.calibration.key.fit.value,
            "source_sha256": prepared.calibration.key.graph_sha256,
            **metadata,
        },
    )
    onnx.checker.check_model(model, full_check=True)
    OnnxRunner(model)
    content = model.SerializeToString(deterministic=True)
    path = prepared.target.graph(name)
    write_whole(path, content)
    return QuantizedGraph(
        target=prepared.target.name,
        precision=metadata["precision"],
        path=path,
        size_bytes=len(content),
        quantized_nodes=quantized_nodes,
        kept_float=kept_float,
        calibration_reused=prepared.reused,
    )
