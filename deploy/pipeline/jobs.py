"""What a quantization does to one target: each graph is made, or kept if it is there already."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from deploy.calibration import Calibration, Fit, RangeConfig, Sample
from deploy.cluster.client import Cluster
from deploy.graph.profile import Profile
from deploy.pipeline.handing_over import hand_over
from deploy.progress import Progress
from deploy.quantize import quantization
from deploy.quantize.calibration_source import CalibrationSource
from deploy.quantize.gate import Gate
from deploy.quantize.gate_search import find_gated, search, tuning_set, write_gated
from deploy.quantize.preparation import Prepared, prepare, prepare_with
from deploy.quantize.recipe import Recipe
from deploy.quantize.vendors import find_vendors, write_vendors
from deploy.quantize.written import MIN_FP16_SQNR, HandedFolder, QuantizedGraph
from deploy.store.artifacts import Network
from deploy.store.memory import give_back
from deploy.store.reuse import graph_identity, images_sha256, stage_key
from deploy.targets import int8_name
from deploy.targets.accelerator import Accelerator
from deploy.targets.ort import ORT


@dataclass(frozen=True, kw_only=True)
class QuantizationJob:
    """What is asked of each target alike; see :func:`deploy.quantize`."""

    fp16: bool
    int8: bool
    recipes: tuple[Recipe, ...]
    source: CalibrationSource | None  # None: there are no images, only ``given``
    given: tuple[tuple[str, Calibration], ...] = ()  # in place of images
    accelerators: tuple[Accelerator, ...] = (ORT,)  # that INT8 graphs are for
    vendor: bool = False  # write what the toolchains' own quantizers make of it, too
    method: RangeConfig | None = None
    fp16_sqnr: float = MIN_FP16_SQNR
    gate: Gate | None = None
    evaluated: Sequence[Sample] = ()  # to confirm the gate on
    fit: Fit | None = None
    force: bool = False  # make anew what is there
    carrier: bool = False  # in place of the float graph, where a toolchain is handed one
    options: Mapping[str, Any] = field(default_factory=dict)  # of that toolchain itself
    cluster: Cluster | None = None  # that does what can be spread


def quantize_target(
    target: Network, job: QuantizationJob, progress: Progress
) -> list[QuantizedGraph | HandedFolder]:
    """Write what is asked for, beside the target's float graph.

    Raises:
        DeployError, DataError, CalibrationError: what keeps it from being done.
    """
    written: list[QuantizedGraph | HandedFolder] = []
    for accelerator in job.accelerators:
        if accelerator.hand_over is not None:
            written += hand_over(target, accelerator, accelerator.hand_over, job, progress)
    profiles = [a.profile for a in job.accelerators if a.profile is not None and job.int8]
    if not job.fp16 and not profiles:
        return written
    if job.given or job.source is None:
        prepared = replace(prepare_with(target, job.given, job.fit), cluster=job.cluster)
    else:
        prepared = prepare(
            target, job.source, job.fit, progress, force=job.force, cluster=job.cluster
        )
    give_back()
    basis = _basis(prepared, job)
    give_back()
    if job.fp16:
        written.append(_fp16(prepared, job, basis, progress))
        give_back()
    for profile in profiles:
        written.append(_int8(prepared, job, profile, basis, progress))
        give_back()
    for accelerator in job.accelerators:
        if job.int8 and job.vendor and accelerator.vendor and job.source:
            key = stage_key("vendor", **basis, target=accelerator.name)
            written.append(
                find_vendors(prepared, accelerator, key, progress, force=job.force)
                or write_vendors(prepared, accelerator, job.source, progress, key)
            )
    return written


def _basis(prepared: Prepared, job: QuantizationJob) -> dict[str, Any]:
    """Return what every quantized graph is made from."""
    return {
        "graph": graph_identity(prepared.graph),
        "calibration": prepared.calibration.sha256,
        "images": None if job.source is None else images_sha256(job.source.samples),
        **({"skipped": prepared.skipped} if prepared.skipped else {}),
    }


def _fp16(
    prepared: Prepared, job: QuantizationJob, basis: dict[str, Any], progress: Progress
) -> QuantizedGraph:
    key = stage_key("fp16", **basis, sqnr=job.fp16_sqnr)
    found = None if job.force else quantization.find_quantized(prepared, "fp16", key, progress)
    return found or quantization.write_fp16(prepared, job.source, progress, job.fp16_sqnr, key)


def _int8(
    prepared: Prepared,
    job: QuantizationJob,
    profile: Profile,
    basis: dict[str, Any],
    progress: Progress,
) -> QuantizedGraph:
    config = job.method or RangeConfig()
    settings = {
        "target": profile.name,  # its rules are code
        "config": asdict(config),
        "recipes": [asdict(recipe) for recipe in job.recipes],
    }
    plans = [
        partial(quantization.plan, prepared, job.source, config, profile, recipe, progress)
        for recipe in job.recipes
    ]
    if job.gate is None or job.source is None:
        key = stage_key("int8", **basis, **settings)
        name = int8_name(profile.name)
        found = None if job.force else quantization.find_quantized(prepared, name, key, progress)
        if found:
            return found
        plan = plans[0]()
        prepared.target.gate.unlink(missing_ok=True)  # of an earlier graph
        return quantization.write_int8(prepared, plan, config, progress, key=key)
    key = stage_key(
        "gate",
        **basis,
        **settings,
        gate=asdict(job.gate),
        tuning=images_sha256(tuning_set(job.source, job.gate), masks=True),
        evaluated=images_sha256(job.evaluated, masks=True),
        labels=[job.source.data.classes, job.source.data.ignore],
    )
    gated = None if job.force else find_gated(prepared, profile, key, progress)
    if gated:
        return gated
    outcome = search(prepared, job.source, job.evaluated, job.gate, plans, progress)
    return write_gated(prepared, outcome, config, progress, key)
