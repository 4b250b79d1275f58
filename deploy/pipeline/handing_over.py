"""Folders for toolchains that quantize by themselves: the float graph, or a carrier, and the rest.

A carrier takes the float graph's place: its weights are our rounded ones, its biases corrected
(deploy/quantize/carrier.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import onnx

from deploy.calibration import RangeConfig
from deploy.calibration.record import file_sha256
from deploy.errors import DeployError
from deploy.export.heads import refuse_wrapped
from deploy.graph.metadata import CARRIER, FLOAT_FILE, read_metadata, set_metadata
from deploy.graph.reading import read_graph
from deploy.progress import Progress
from deploy.quantize import quantization
from deploy.quantize.int8 import Ranges
from deploy.quantize.preparation import prepare
from deploy.quantize.recipe import Recipe
from deploy.quantize.written import HandedFolder
from deploy.store.artifacts import Network
from deploy.store.files import write_folder_whole
from deploy.store.reuse import SEAL
from deploy.targets.accelerator import Accelerator, FloatGraph, HandedOver, Handing, Precision
from deploy.targets.ort import ORT

if TYPE_CHECKING:
    from deploy.pipeline.jobs import QuantizationJob


def check_handing(
    accelerators: Sequence[Accelerator],
    *,
    int8: bool,
    carrier: bool,
    options: Mapping[str, Any],
    recipes: Sequence[Recipe],
) -> None:
    """Raise DeployError for a carrier or options of a toolchain that does not take them."""
    what = "a carrier" if carrier else "a compiler's option"
    if not carrier and not options:
        return
    handings = [each.hand_over for each in accelerators if each.hand_over is not None]
    if not handings:
        names = ", ".join(each.name for each in accelerators)
        raise DeployError(f"{what} is not for target {names}: deploy quantizes its graph")
    if not int8:
        raise DeployError(f"{what} is for INT8, which is not asked for: add --int8")
    if carrier and len(recipes) > 1:
        raise DeployError("a carrier is of one recipe: choose another than auto")
    for handing in handings:
        handing.check_options(options)


def hand_over(
    target: Network,
    accelerator: Accelerator,
    handing: Handing,
    job: QuantizationJob,
    progress: Progress,
) -> list[HandedFolder]:
    """Write the folder of each precision that is asked for and that the toolchain makes.

    Raises:
        DeployError, DataError, CalibrationError: what keeps it from being done.
    """
    asked = {Precision.INT8: job.int8 and job.source is not None, Precision.FP16: job.fp16}
    written = []
    for precision in handing.precisions:
        if asked[precision]:
            graph = _float_graph(target, accelerator.runtime, precision, job, progress)
            folder = accelerator.folder(precision)
            with progress.step(f"{folder} {target.name}"):
                written.append(_write(target, graph, handing.write(graph), folder))
    return written


def _write(target: Network, graph: FloatGraph, given: HandedOver, folder: str) -> HandedFolder:
    path = target.handed_over(folder)
    return HandedFolder(
        target=target.name,
        path=path,
        size_bytes=write_folder_whole(path, given.files),
        precision=graph.precision.value,
        images=len(graph.samples),
        calibrate_mode=given.calibrate_mode,
        recipe=read_metadata(graph.model).get(CARRIER),
    )


def _float_graph(
    target: Network,
    runtime: str,
    precision: Precision,
    job: QuantizationJob,
    progress: Progress,
) -> FloatGraph:
    """Return what is handed over for a precision; only INT8 takes images, options, a carrier."""
    model, ranges = read_graph(target.fp32), None
    is_int8 = precision is Precision.INT8
    refuse_wrapped(model, target.fp32, f"{runtime} takes the graph without these")
    if is_int8 and job.carrier:
        model, ranges = _carrier(target, job, progress)
    metadata = read_metadata(model)
    metadata.pop(SEAL, None)  # of the float graph's file
    set_metadata(model, metadata | {FLOAT_FILE: file_sha256(target.fp32)})
    source = job.source if is_int8 else None
    return FloatGraph(
        name=target.name,
        path=target.fp32,
        precision=precision,
        model=model,
        samples=source.samples if source else (),
        images=source.images if source else (),
        config=job.method,
        options=job.options if is_int8 else {},
        ranges=ranges,
    )


def _carrier(
    target: Network, job: QuantizationJob, progress: Progress
) -> tuple[onnx.ModelProto, Ranges]:
    """Return the carrier of the default target's quantization, and its ranges."""
    assert job.source is not None
    assert ORT.profile is not None
    prepared = prepare(target, job.source, job.fit, progress, force=job.force, cluster=job.cluster)
    config, (recipe,) = job.method or RangeConfig(), job.recipes
    plan = quantization.plan(prepared, job.source, config, ORT.profile, recipe, progress)
    carrier = plan.carrier()
    model = carrier.graph.model
    added = {
        CARRIER: recipe.name,
        "fit": prepared.calibration.key.fit.value,
        "calibration_method": config.method.value,
        "calibration_images": json.dumps([i.sha256 for i in prepared.calibration.key.images]),
    }
    set_metadata(model, read_metadata(model) | added)
    return model, carrier.ranges
