"""From the float graph to FP16 and INT8: calibrate → quantize, and what the linter says."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from deploy import models
from deploy.calibration import CalibrationError, Fit, RangeConfig, read_calibration
from deploy.calibration.voc import lacks_voc
from deploy.cluster.client import Cluster, forget, use_cluster
from deploy.errors import DeployError
from deploy.export.interface import Interface
from deploy.pipeline.exporting import export_if_missing
from deploy.pipeline.handing_over import check_handing
from deploy.pipeline.jobs import QuantizationJob, quantize_target
from deploy.progress import Progress, SilentProgress
from deploy.quantize.calibration_source import EVALUATION_SPLIT, CalibrationSource, Part
from deploy.quantize.gate import Gate
from deploy.quantize.preparation import CalibrationFile, prepare, prepare_with
from deploy.quantize.quantization import add_wrapped
from deploy.quantize.recipe import Levers, RecipeName, choose_recipes
from deploy.quantize.written import MIN_FP16_SQNR, HandedFolder, QuantizedGraph
from deploy.store.artifacts import DEFAULT_OUT, exported_variants, resolve_network, resolve_networks
from deploy.store.claims import claim, refuse_foreign, refuse_one_folder_for_two
from deploy.store.files import write_whole
from deploy.store.locks import hold
from deploy.targets import DEFAULT_TARGET, find_accelerator
from deploy.targets.accelerator import Accelerator
from deploy.validate.evaluation_set import EvaluationSet


def quantize(
    targets: Sequence[str] = (),
    *,
    fp16: bool = True,
    int8: bool = True,
    fp16_sqnr: float = MIN_FP16_SQNR,
    method: RangeConfig | None = None,
    target: str | Sequence[str] = DEFAULT_TARGET,
    vendor: bool = False,
    recipe: RecipeName = RecipeName.FAST,
    levers: Levers | None = None,
    gate: Gate | None = None,
    carrier: bool = False,
    vamc: Mapping[str, Any] | None = None,
    images: int = 50,
    split: str = "train",
    fit: Fit | None = None,
    calibration: Path | None = None,
    interface: Interface | None = None,
    voc_root: Path | None = None,
    skip_bad: bool = False,
    weights: Path | None = None,
    out: Path = DEFAULT_OUT,
    force: bool = False,
    cluster: Cluster | str | None = None,
    ship: bool = False,
    progress: Progress | None = None,
) -> list[QuantizedGraph | HandedFolder]:
    """Calibrate and quantize variants or ONNX files into ``<out>/<name>/{fp16,int8}.onnx``.

    The INT8 graph for another target than the default one is ``int8-<target>.onnx``; vacc gets a
    folder ``vacc`` in its place, and ``vacc-fp16`` for its own half precision. A graph that is
    there already, made from the same, is kept.

    Args:
        targets: variant ids or paths; by default every variant exported so far, or else the default
            one. A variant that has no graph yet is exported first.
        fp16: write the half-precision graph.
        int8: write the 8-bit graph.
        fp16_sqnr: dB that the half-precision graph's logits shall keep on calibration images; as
            many of its first nodes stay FP32 as that takes, up to a quarter of all.
        method: how ranges are chosen; by default the full range seen (vacc: KL divergence).
        target: the toolchains that INT8 graphs are for (docs/targets.md); they share one
            calibration and, where they round weights alike, the levers' work.
        vendor: write what their own quantizers make of the same images, too, to be compared:
            ``int8-<target>-vendor.onnx``.
        recipe: which accuracy levers are used (docs/accuracy.md); "auto" needs a gate.
        levers: single levers set by hand.
        gate: what INT8 may cost. Where it is missed the graph is named ``int8-missed.onnx``.
        carrier: give vacc the float graph with our rounded weights and corrected biases in place of
            the plain one, and our ranges beside it; ``recipe`` and ``levers`` say which.
        vamc: further keys of the compiler's ``backend.quantize`` (docs/targets.md), for vacc.
        images: how many images of ``split`` calibrate, evenly spaced over its list.
        split: the list they come from.
        fit: how they become inputs; by default as the graph's metadata say, else crop.
        calibration: a file that :func:`calibrate` wrote for the one target, in place of images.
        interface: what each graph that is written shall take and give in one more file beside it.
        voc_root: see :func:`deploy.calibration.find_voc_root`.
        skip_bad: leave images out that cannot be used; else the first of them is an error.
        weights: a checkpoint, if a variant must be exported first.
        out: the folder of the artifacts.
        force: calibrate and quantize anew, whatever is there.
        cluster: a Dask cluster that does the images: a scheduler's address or file, or "local[:N]"
            (docs/cluster.md); by default this process does.
        ship: send its workers the files that they lack.
        progress: where to show what is going on.

    Raises:
        DeployError, ModelError, DataError, CalibrationError: what keeps it from being done.
    """
    progress = progress or SilentProgress()
    if not math.isfinite(fp16_sqnr):
        raise DeployError(f"--fp16-sqnr {fp16_sqnr}: it must be a number of dB")
    recipes = choose_recipes(RecipeName(recipe), levers or Levers())
    if gate is None and len(recipes) > 1:
        raise DeployError(f"recipe {recipe!r} needs a gate: pass --min-ratio or --max-drop")
    interface = interface or Interface()
    asked = [target] if isinstance(target, str) else list(target)
    accelerators = tuple(find_accelerator(name) for name in dict.fromkeys(asked))
    for accelerator in accelerators if int8 else ():
        _refuse_unsuitable(accelerator, interface, calibrated=bool(calibration))
    if vendor:
        _require_vendors(accelerators)
    if gate and len(accelerators) != 1:
        raise DeployError(f"a gate is held by one target's graph, not by {len(accelerators)}")
    check_handing(accelerators, int8=int8, carrier=carrier, options=vamc or {}, recipes=recipes)
    names = list(targets) or exported_variants(out) or [models.DEFAULT_VARIANT]
    if calibration and len(names) != 1:
        raise DeployError(f"a calibration is of one graph, not of {len(names)}: name the target")
    given = ((str(calibration), read_calibration(calibration)),) if calibration else ()
    without_images = bool(given) and voc_root is None and lacks_voc()
    source = (
        None
        if without_images
        else CalibrationSource.find(voc_root, split, images, skip_bad=skip_bad)
    )
    if gate and source is None:
        raise DeployError("a gate is held on images: name their folder with --voc-root")
    if vendor and source is None:
        raise DeployError("other quantizers calibrate on images: name their folder with --voc-root")
    evaluated = None
    if gate and source:
        source = source.screen_others(gate.images) if skip_bad else source
        evaluated = EvaluationSet.find(voc_root, EVALUATION_SPLIT, None, skip_bad=skip_bad)
    job = QuantizationJob(
        fp16=fp16,
        int8=int8,
        recipes=recipes,
        source=source,
        given=given,
        accelerators=accelerators,
        vendor=vendor,
        method=method,
        fp16_sqnr=fp16_sqnr,
        gate=gate,
        evaluated=evaluated.samples if evaluated else (),
        fit=fit,
        force=force,
        carrier=carrier,
        options=vamc or {},
    )
    written: list[QuantizedGraph | HandedFolder] = []
    chosen = resolve_networks(names, out)
    refuse_one_folder_for_two(chosen)
    with use_cluster(cluster, progress, ship=ship) as found:
        job = replace(job, cluster=found)
        for model in chosen:
            refuse_foreign(model)
            with hold(model.folder, progress):
                export_if_missing(model, weights, out, fit, voc_root, progress)
                written += [
                    add_wrapped(graph, interface) if isinstance(graph, QuantizedGraph) else graph
                    for graph in quantize_target(model, job, progress)
                ]
                claim(model)
                forget(model.folder)
    return written


def _refuse_unsuitable(
    accelerator: Accelerator,
    interface: Interface,
    *,
    calibrated: bool,
) -> None:
    """Refuse what an accelerator that quantizes by itself cannot do."""
    name = accelerator.name
    if accelerator.profile is None and not interface.is_plain:
        raise DeployError(f"{name} takes the plain float graph: leave out head and preprocessing")
    if accelerator.profile is None and calibrated:
        raise DeployError(f"{name} calibrates on images by itself: leave out the calibration")


def _require_vendors(accelerators: Sequence[Accelerator]) -> None:
    """See that the quantizers of those accelerators that have one are there."""
    found = [accelerator.vendor for accelerator in accelerators if accelerator.vendor]
    if not found:
        names = ", ".join(accelerator.name for accelerator in accelerators)
        raise DeployError(f"{names}: no quantizer of its own runs here, leave out --vendor")
    for vendor in found:
        vendor.require()


def calibrate(
    target: str = models.DEFAULT_VARIANT,
    *,
    images: int = 50,
    part: Part | None = None,
    split: str = "train",
    fit: Fit | None = None,
    voc_root: Path | None = None,
    skip_bad: bool = False,
    weights: Path | None = None,
    out: Path = DEFAULT_OUT,
    force: bool = False,
    cluster: Cluster | str | None = None,
    ship: bool = False,
    progress: Progress | None = None,
) -> CalibrationFile:
    """Write the statistics of a variant's or an ONNX file's activations: ``calibration.json``.

    Args:
        target: a variant's id or a path. A variant that has no graph yet is exported first.
        images: how many images of ``split``, evenly spaced over its list.
        part: (I, N) for every N-th of them from the I-th: ``calibration-I-of-N.json``. The parts
            may be made on several machines and merged: see :func:`merge_calibration`.
        split: the list they come from.
        fit: how they become inputs; by default as the graph's metadata say, else crop.
        voc_root: see :func:`deploy.calibration.find_voc_root`.
        skip_bad: leave images out that cannot be used; else the first of them is an error.
        weights: a checkpoint, if a variant must be exported first.
        out: the folder of the artifacts.
        force: calibrate anew, though the file is there.
        cluster: a Dask cluster that does the images: a scheduler's address or file, or "local[:N]"
            (docs/cluster.md); by default this process does.
        ship: send its workers the files that they lack.
        progress: where to show what is going on.

    Raises:
        DeployError, ModelError, DataError, CalibrationError: what keeps it from being done.
    """
    progress = progress or SilentProgress()
    source = CalibrationSource.find(voc_root, split, images, part, skip_bad=skip_bad)
    found = resolve_network(target, out)
    refuse_foreign(found)
    with use_cluster(cluster, progress, ship=ship) as spread, hold(found.folder, progress):
        export_if_missing(found, weights, out, fit, voc_root, progress)
        prepared = prepare(found, source, fit, progress, force=force, cluster=spread)
        claim(found)
        forget(found.folder)
    return CalibrationFile.of(prepared, source.path(found), reused=prepared.reused)


def merge_calibration(
    target: str, parts: Sequence[Path], *, out: Path = DEFAULT_OUT
) -> CalibrationFile:
    """Write the ``calibration.json`` that one run over the images of all parts would have written.

    Raises:
        DeployError: there is no such target, or its graph cannot be read.
        CalibrationError: there are no parts, or one cannot be read, is of another graph or other
            settings, or shares an image with another.
    """
    if not parts:
        raise CalibrationError("no parts to merge: name the files that 'deploy calibrate' wrote")
    found = resolve_network(target, out)
    refuse_foreign(found)
    with hold(found.folder, SilentProgress()):
        prepared = prepare_with(found, [(str(p), read_calibration(p)) for p in parts])
        write_whole(found.calibration, prepared.calibration.to_json())
        claim(found)
    return CalibrationFile.of(prepared, found.calibration, reused=False)
