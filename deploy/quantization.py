"""Calibrate a target, or reuse its calibration, and write its FP16 and INT8 graphs."""

import json
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx

from calibration import (
    Calibration,
    CalibrationError,
    CalibrationKey,
    DataError,
    Fit,
    Method,
    RangeConfig,
    Sample,
    find_voc_root,
    observe,
    preprocess,
    read_calibration,
    read_split,
)
from calibration.observe import SAMPLES
from calibration.preprocess import Float32Array
from calibration.record import CalibrationImage, identify
from calibration.statistics import TensorStatistics
from calibration.voc import pick, read_image
from deploy.artifacts import Target, int8_name
from deploy.emulation import emulate_half
from deploy.files import write_whole
from deploy.graph import (
    Graph,
    graph_sha256,
    read_graph,
    read_metadata,
    set_metadata,
    with_node_names,
)
from deploy.metrics import logits_sqnr
from deploy.progress import Progress
from deploy.quantize.equalize import equalize
from deploy.quantize.fp16 import convert_fp16_within
from deploy.quantize.placement import Placement, place
from deploy.quantize.plan import Int8Plan, plan_int8
from deploy.quantize.recipe import Recipe
from deploy.runtime import OnnxRunner, default_threads
from deploy.targets import DEFAULT_TARGET, PROFILES, Profile

EVALUATION_SPLIT = "val"
FP16_IMAGES = 2  # on which a half-precision graph is measured
MIN_FP16_SQNR = 60.0  # dB, of the logits


@dataclass(frozen=True, kw_only=True)
class CalibrationSource:
    """The images that calibrate."""

    split: str
    samples: list[Sample]
    images: tuple[CalibrationImage, ...]
    others: list[Sample]  # of the split: they calibrate nothing

    @classmethod
    def find(cls, voc_root: Path | None, split: str, count: int) -> "CalibrationSource":
        """Pick ``count`` images of ``split``, evenly spaced over its list.

        Raises:
            DataError: there is no such data.
            CalibrationError: the split has fewer images, or shares one with the evaluation split.
        """
        root = find_voc_root(voc_root)
        listed = read_split(root, split)
        if not 1 <= count <= len(listed):
            raise CalibrationError(
                f"{count} calibration images asked for, but split {split!r} of {root} has "
                f"{len(listed)}: pass --images with 1 to {len(listed)}"
            )
        samples = pick(listed, count)
        try:
            evaluated = {s.name for s in read_split(root, EVALUATION_SPLIT)}
        except DataError:
            evaluated = set()  # no such split: validation checks again, by content
        shared = sorted(evaluated & {s.name for s in samples})
        if shared:
            raise CalibrationError(
                f"{len(shared)} calibration images of split {split!r} are also in "
                f"{EVALUATION_SPLIT!r} ({shared[0]}, …): accuracy would be flattered; calibrate "
                "with images of 'train'"
            )
        taken = {s.name for s in samples}
        others = [s for s in listed if s.name not in taken]
        return cls(split=split, samples=samples, images=identify(samples), others=others)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A float graph that is ready to be quantized."""

    target: Target
    graph: Graph
    placement: Placement  # of the default profile: it observes what any needs
    calibration: Calibration
    reused: bool  # the calibration was on disk already


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
    recipe: str | None = None
    gate: dict[str, Any] | None = None  # what gate.json holds, where a gate was asked for

    @property
    def missed_gate(self) -> bool:
        """Whether a gate was asked for and does not hold."""
        return self.gate is not None and not self.gate["held"]


def prepare(
    target: Target, source: CalibrationSource, fit: Fit | None, progress: Progress
) -> Prepared:
    """Read a target's float graph and calibrate it, unless its calibration is there already.

    Raises:
        GraphError: the graph cannot be read or quantized.
        CalibrationError: its statistics cannot be collected, or an old file cannot be read.
    """
    model = with_node_names(read_graph(target.fp32))
    graph = Graph(model)
    placement = place(graph, PROFILES[DEFAULT_TARGET])
    fit = fit or Fit(read_metadata(model).get("fit", Fit.CROP.value))
    key = CalibrationKey(
        graph_sha256=graph_sha256(model),
        fit=fit,
        images=source.images,
        samples_per_tensor=SAMPLES,
    )
    if target.calibration.is_file():
        found = read_calibration(target.calibration)
        if found.key == key:
            return Prepared(
                target=target, graph=graph, placement=placement, calibration=found, reused=True
            )

    tensors = _observe(graph, source, fit, progress, f"calibrate {target.name}")
    calibration = Calibration(key=key, tensors=tensors)
    write_whole(target.calibration, calibration.to_json())
    return Prepared(
        target=target, graph=graph, placement=placement, calibration=calibration, reused=False
    )


def _observe(
    graph: Graph, source: CalibrationSource, fit: Fit, progress: Progress, label: str
) -> dict[str, TensorStatistics]:
    """Return the statistics of all that may be quantized, over all calibration images."""
    placement = place(graph, PROFILES[DEFAULT_TARGET])
    samples = progress.track(source.samples, label)
    return observe(
        graph.model,
        {name: graph.shapes[name] for name in placement.observed},
        (preprocess(read_image(sample.image), fit, graph.input_size) for sample in samples),
        non_negative=placement.non_negative,
        threads=default_threads(),
    )


def write_fp16(
    prepared: Prepared, source: CalibrationSource, progress: Progress, min_sqnr: float
) -> QuantizedGraph:
    """Write ``fp16.onnx``.

    Nodes whose measured values do not fit a half stay FP32, and as many of the first ones as the
    logits need to keep ``min_sqnr`` dB on a few calibration images.
    """
    with progress.step(f"fp16 {prepared.target.name}"):
        graph, tensors = prepared.graph, prepared.calibration.tensors
        magnitudes = {
            name: max(abs(tensors[root].minimum), abs(tensors[root].maximum))
            for name, root in prepared.placement.scale_of.items()
        }
        images = _inputs(prepared, source, FP16_IMAGES)
        runner = OnnxRunner(graph.model)
        reference = [runner(image) for image in images]

        def sqnr(model: onnx.ModelProto) -> float:
            emulated = OnnxRunner(emulate_half(model))
            return logits_sqnr(reference, [emulated(image) for image in images])

        half = convert_fp16_within(graph, magnitudes, sqnr, min_sqnr)
        count = len(graph.model.graph.node) - len(half.kept_float)
        return _write(prepared, "fp16", half.model, count, half.kept_float, {"precision": "fp16"})


def _inputs(prepared: Prepared, source: CalibrationSource, count: int) -> list[Float32Array]:
    """Return network inputs (1, 3, H, W) of ``count`` calibration images, or of all there are."""
    samples = pick(source.samples, min(count, len(source.samples))) if count else []
    fit, size = prepared.calibration.key.fit, prepared.graph.input_size
    return [preprocess(read_image(sample.image), fit, size) for sample in samples]


def plan(
    prepared: Prepared,
    source: CalibrationSource,
    config: RangeConfig,
    profile: Profile,
    recipe: Recipe,
    progress: Progress,
) -> Int8Plan:
    """Choose ranges and integer weights; raises GraphError or CalibrationError as the stages do.

    An equalized graph is calibrated anew: its histograms are others.
    """
    name, fit = prepared.target.name, prepared.calibration.key.fit
    graph, statistics = prepared.graph, prepared.calibration.tensors
    if recipe.equalize:
        graph = equalize(graph, statistics)
        statistics = _observe(graph, source, fit, progress, f"equalize {name}")
    with progress.step(f"levers {name}"):
        images = _inputs(prepared, source, recipe.images if recipe.needs_images else 0)
        return plan_int8(graph, statistics, images, config=config, profile=profile, recipe=recipe)


def write_int8(
    prepared: Prepared,
    plan: Int8Plan,
    config: RangeConfig,
    progress: Progress,
    exclude: Collection[str] = frozenset(),
    suffix: str = "",
) -> QuantizedGraph:
    """Write the INT8 graph of a plan; ``suffix`` is added to its name.

    Raises:
        GraphError: a node in ``exclude``, which shall stay float, cannot.
    """
    name = int8_name(plan.profile.name) + suffix
    with progress.step(f"{name} {prepared.target.name}"):
        model, placement = plan.build(exclude)
        chosen = {}
        metadata = {
            "precision": "int8",
            "target": plan.profile.name,
            "recipe": plan.recipe.name,
            "calibration_method": config.method.value,
            "calibration_images": json.dumps([i.sha256 for i in prepared.calibration.key.images]),
        }
        if config.method == Method.AUTO:
            chosen = {tensor: method.value for tensor, method in plan.methods.items()}
            metadata["calibration_methods"] = json.dumps(chosen)
        if exclude:
            metadata["kept_float"] = json.dumps(sorted(exclude))
        count, kept = len(placement.nodes), placement.kept_float
        written = _write(prepared, name, model, count, kept, metadata)
        return replace(written, methods=chosen, recipe=plan.recipe.name)


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
