"""Write a calibrated target's FP16 and INT8 graphs."""

import json
import math
import sys
import tempfile
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx

from deploy.calibration import CalibrationError, Method, RangeConfig
from deploy.calibration.preprocess import Float32Array
from deploy.errors import GraphError
from deploy.export.heads import write_wrapped
from deploy.export.interface import Interface
from deploy.graph.graph import Graph, check_model
from deploy.graph.half import emulate_half
from deploy.graph.metadata import SUMMARY, read_metadata, set_metadata
from deploy.graph.profile import Profile
from deploy.progress import REUSED, Progress, SilentProgress
from deploy.quantize.calibration_source import CalibrationSource
from deploy.quantize.equalize import equalize
from deploy.quantize.fp16 import convert_fp16
from deploy.quantize.half_ranges import find_unmeasured, measure_magnitudes
from deploy.quantize.half_search import Found, convert_within
from deploy.quantize.kept_levers import LeversFolder
from deploy.quantize.plan import Int8Plan, plan_int8
from deploy.quantize.preparation import (
    Prepared,
    calibrate_equalized,
    input_samples,
    read_inputs,
)
from deploy.quantize.recipe import Recipe
from deploy.quantize.spread_levers import LeversOn
from deploy.quantize.spread_magnitudes import measure_magnitudes_on
from deploy.quantize.weights import ImprovedWeights, improve_weights
from deploy.quantize.written import QuantizedGraph, Summary
from deploy.runtimes.onnxruntime import OnnxRunner
from deploy.store.files import write_whole
from deploy.store.memory import give_back
from deploy.store.reuse import SEAL, read_sealed_graph, seal_graph
from deploy.targets import int8_name
from deploy.validate.metrics import logits_sqnr

FP16_IMAGES = 4  # on which a half-precision graph is measured


def find_quantized(
    prepared: Prepared, name: str, key: str, progress: Progress
) -> QuantizedGraph | None:
    """Return the graph of that name if it is there and bears the seal of ``key``."""
    path = prepared.target.graph(name)
    model = read_sealed_graph(path, key)
    if model is None:
        return None
    with progress.step(f"{name} {prepared.target.name}") as step:
        step.note = REUSED
    metadata = read_metadata(model)
    return QuantizedGraph(
        target=prepared.target.name,
        precision=metadata["precision"],
        path=path,
        size_bytes=path.stat().st_size,
        **json.loads(metadata[SUMMARY]),
        calibration_reused=prepared.reused,
        reused=True,
        methods=json.loads(metadata.get("calibration_methods", "{}")),
        recipe=metadata.get("recipe"),
    )


def write_fp16(
    prepared: Prepared,
    source: CalibrationSource | None,
    progress: Progress,
    min_sqnr: float,
    key: str | None = None,
) -> QuantizedGraph:
    """Write ``fp16.onnx``, with the seal of ``key``.

    Nodes whose measured values do not fit a half stay FP32, and as many others as the logits need
    to keep ``min_sqnr`` dB on a few calibration images, where there are images. A calibration file
    has the ranges of what 8 bits scale; what it lacks, and what takes that, stays FP32.

    Raises:
        GraphError: a logit is not finite in half precision.
        CalibrationError: a tensor is not finite in single precision.
    """
    with progress.step(f"fp16 {prepared.target.name}"):
        graph = prepared.graph
        magnitudes = _magnitudes(prepared, source)
        if source is None:
            found = Found(half=convert_fp16(graph, magnitudes), sqnr_db=math.nan)
        else:
            # of random logits there is nothing to keep, but they must be finite
            is_random = read_metadata(graph.model).get("weights") == "random"
            images = 1 if is_random else FP16_IMAGES
            measure = _half_sqnr(graph, read_inputs(prepared, source, images))
            wanted = -sys.float_info.max if is_random else min_sqnr
            found = convert_within(graph, magnitudes, measure, wanted)
            if not found.sqnr_db > -math.inf:
                raise GraphError(
                    f"{prepared.target.fp32} has logits that are not finite in half precision, "
                    f"though all its tensors fit ({found.shortfall}): quantize it with --int8"
                )
        kept = found.half.kept_float
        count = len(graph.model.graph.node) - len(kept)
        return write_quantized(
            prepared,
            "fp16",
            found.half.model,
            Summary(
                quantized_nodes=count,
                kept_float=kept,
                sqnr_db=found.sqnr_db if math.isfinite(found.sqnr_db) else None,
                shortfall=found.shortfall,
            ),
            {"precision": "fp16"},
            key,
        )


def _magnitudes(prepared: Prepared, source: CalibrationSource | None) -> dict[str, float]:
    """Return the largest absolute value of every tensor that must fit a half; NaN if unknown."""
    graph, tensors = prepared.graph, prepared.calibration.tensors
    known = {
        name: max(abs(tensors[root].minimum), abs(tensors[root].maximum))
        for name, root in prepared.placement.scale_of.items()
    }
    lacking = find_unmeasured(graph, known)
    if not lacking:
        return known
    if source is None:
        return known | dict.fromkeys(lacking, math.nan)
    fit, label = prepared.calibration.key.fit, f"ranges {prepared.target.name}"
    if prepared.cluster is not None:
        return known | measure_magnitudes_on(
            prepared.cluster,
            graph,
            lacking,
            source,
            fit,
            SilentProgress(),
            label,
            prepared.target.folder,
        )
    images = source.inputs(fit, graph.input_size, SilentProgress(), label)
    return known | measure_magnitudes(graph, lacking, images)


def _open_emulated(model: onnx.ModelProto) -> OnnxRunner:
    """Return a session on the emulated half, by way of a file: not held in memory beside it."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "emulated.onnx")
            onnx.save(emulate_half(model), path)
            give_back()
            return OnnxRunner(path)
    except OSError:  # there is no room for it
        return OnnxRunner(emulate_half(model))


def _half_sqnr(graph: Graph, images: Sequence[Float32Array]) -> Callable[[onnx.ModelProto], float]:
    """Return what measures a half-precision graph's logits against the float graph's, in dB.

    The worst image counts: others than these will be seen. A logit that is not finite gives -inf.
    """
    runner = OnnxRunner(graph.model)
    reference = [runner(image) for image in images]

    def measure(model: onnx.ModelProto) -> float:
        emulated = _open_emulated(model)
        give_back()
        logits = [emulated(image) for image in images]
        if not all(np.isfinite(found).all() for found in logits):
            return -math.inf
        pairs = zip(reference, logits, strict=True)
        return min(logits_sqnr([expected], [found]) for expected, found in pairs)

    return measure


def plan(
    prepared: Prepared,
    source: CalibrationSource | None,
    config: RangeConfig,
    profile: Profile,
    recipe: Recipe,
    progress: Progress,
) -> Int8Plan:
    """Choose ranges and integer weights.

    An equalized graph is calibrated anew: its histograms are others. That, and what the levers
    give, is kept for the next target.

    Raises:
        GraphError, CalibrationError: as the stages do; or the recipe looks at images and
            ``source`` has none.
    """
    name = prepared.target.name
    graph, statistics = prepared.graph, prepared.calibration.tensors
    if source is None:
        if recipe.needs_images:
            raise CalibrationError(
                f"recipe {recipe.name} looks at images, a calibration file holds none: name their "
                "folder with --voc-root, or pass --recipe plain"
            )
        return plan_int8(graph, statistics, [], config=config, profile=profile, recipe=recipe)
    if recipe.equalize:
        graph = equalize(graph, statistics)
        statistics = calibrate_equalized(prepared, graph, source, progress).tensors
    count = recipe.images if recipe.improves_weights else 0
    images = read_inputs(prepared, source, count)
    make: Callable[..., ImprovedWeights] = improve_weights
    if prepared.cluster is not None:
        make = LeversOn(
            cluster=prepared.cluster,
            samples=input_samples(source, count),
            fit=prepared.calibration.key.fit,
            folder=prepared.target.folder,
            stage=f"levers {name}",
            progress=progress,
        ).improve
    levers = LeversFolder(prepared.target.folder, profile, force=prepared.force, make=make)
    # a cluster shows its own progress
    with nullcontext() if prepared.cluster else progress.step(f"levers {name}"):
        return plan_int8(
            graph,
            statistics,
            images,
            config=config,
            profile=profile,
            recipe=recipe,
            improve=levers.improve,
        )


def write_int8(
    prepared: Prepared,
    plan: Int8Plan,
    config: RangeConfig,
    progress: Progress,
    exclude: Collection[str] = frozenset(),
    suffix: str = "",
    key: str | None = None,
) -> QuantizedGraph:
    """Write the INT8 graph of a plan, with the seal of ``key``; ``suffix`` is added to its name.

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
        if prepared.skipped:
            metadata["calibration_skipped"] = json.dumps(prepared.skipped)
        if exclude:
            metadata["kept_float"] = json.dumps(sorted(exclude))
        count, kept = len(placement.nodes), placement.kept_float
        summary = Summary(quantized_nodes=count, kept_float=kept)
        written = write_quantized(prepared, name, model, summary, metadata, key)
        return replace(written, methods=chosen, recipe=plan.recipe.name)


def add_wrapped(graph: QuantizedGraph, interface: Interface) -> QuantizedGraph:
    """Write a graph with an interface beside the plain one, unless it missed its gate.

    Raises:
        GraphError, ExportError, DeployError: as :func:`deploy.export.heads.write_wrapped`.
    """
    if graph.missed_gate:
        return graph
    return replace(graph, wrapped=write_wrapped(graph.path, interface))


def write_quantized(
    prepared: Prepared,
    name: str,
    model: onnx.ModelProto,
    summary: Summary,
    metadata: dict[str, str],
    key: str | None,
) -> QuantizedGraph:
    """Check a graph, see that it loads, write it whole, and describe it."""
    inherited = read_metadata(prepared.graph.model)
    inherited.pop(SEAL, None)
    content = {key: value for key, value in asdict(summary).items() if value is not None}
    set_metadata(
        model,
        {
            **inherited,
            "fit": prepared.calibration.key.fit.value,
            "source_sha256": prepared.calibration.key.graph_sha256,
            SUMMARY: json.dumps(content),
            **metadata,
        },
    )
    if key is not None:
        seal_graph(model, key)
    check_model(model, full=True)
    OnnxRunner(model)
    content = model.SerializeToString(deterministic=True)
    path = prepared.target.graph(name)
    write_whole(path, content)
    return QuantizedGraph(
        target=prepared.target.name,
        precision=metadata["precision"],
        path=path,
        size_bytes=len(content),
        **asdict(summary),
        calibration_reused=prepared.reused,
    )
