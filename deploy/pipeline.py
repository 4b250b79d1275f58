"""The stages in order: export → simplify → calibrate → quantize → validate → report.

Only here are artifacts read and written; the stages take values and give values.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

import models
from calibration import CalibrationError, Fit, RangeConfig, read_calibration
from calibration.preprocess import MEAN, STD
from calibration.scenes import write_scenes
from calibration.voc import lacks_voc
from deploy import evaluation
from deploy.artifacts import DEFAULT_OUT, Target, exported_variants, resolve_target
from deploy.calibration_source import EVALUATION_SPLIT, CalibrationSource, Part
from deploy.classes import find_named_data_set, name_classes
from deploy.errors import DeployError
from deploy.export import Difference, compare_with_torch, export_onnx
from deploy.files import write_whole
from deploy.gate import Gate
from deploy.graph import naming, read_graph, read_metadata, set_metadata
from deploy.heads import Interface, refuse_wrapped, write_wrapped
from deploy.jobs import QuantizationJob, quantize_target
from deploy.lint import Finding
from deploy.lint import lint as lint_graph
from deploy.locks import hold
from deploy.preparation import CalibrationFile, prepare, prepare_with
from deploy.progress import REUSED, Progress, SilentProgress
from deploy.quantization import MIN_FP16_SQNR, QuantizedGraph, add_wrapped
from deploy.quantize.recipe import Levers, RecipeName, choose_recipes
from deploy.report import (
    TOLERANCE,
    Report,
    build_report,
    compare_reports,
    read_earlier,
    write_report,
)
from deploy.results import read_kept, read_pictures, read_results, write_results
from deploy.reuse import read_sealed_graph, seal_graph, seal_json, stage_key
from deploy.runtime import Runtime, load_openvino
from deploy.simplify import SimplifiedGraph, simplify_onnx
from deploy.targets import DEFAULT_TARGET, VACC, find_profile
from deploy.vacc import VaccRecipe
from deploy.validate import Protocol

Size = tuple[int, int]
DEFAULT_SIZE: Size = (500, 500)
MAX_SIDE = 8192  # pixels
SCENES = Path("data/scenes")
SCENES_SEED = 2  # the parameters that ship were not trained on it
SCENES_COUNT = 100  # in each split


@dataclass(frozen=True, kw_only=True)
class ExportedGraph:
    """What an export wrote, and the evidence that it is right."""

    variant: str
    path: Path
    weights: str  # "random", or where the parameters come from
    classes: tuple[str, ...]  # by label
    difference: Difference | None  # to torch; of a graph that is reused, when it was made
    simplified: SimplifiedGraph | None  # likewise
    reused: bool = False  # it was there already, made from the same
    wrapped: Path | None = None  # the same graph with the interface that was asked for


@dataclass(frozen=True, kw_only=True)
class LintedGraph:
    """A graph and the rules of a target that it breaks."""

    path: Path
    target: str
    findings: list[Finding]


def export(
    variant: str,
    *,
    weights: Path | None = None,
    out: Path = DEFAULT_OUT,
    input_size: Size = DEFAULT_SIZE,
    fit: Fit = Fit.CROP,
    interface: Interface | None = None,
    voc_root: Path | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> ExportedGraph:
    """Export a variant to ``<out>/<variant>/fp32.onnx``, simplified and proved equal to torch.

    A graph that is there already, made from the same, is kept unless ``force`` is set. With
    ``voc_root`` the graph's classes get that data set's names, and must be as many. With an
    ``interface``, that graph with it stands beside (deploy/heads.py): ``fp32-labels.onnx``.

    Raises:
        ModelError: the variant is unknown or its parameters cannot be loaded.
        DataError: there is no data set at ``voc_root``.
        ExportError: the graph does not compute what torch computes.
        DeployError: the file cannot be written.
    """
    progress = progress or SilentProgress()
    if min(input_size) < 32:
        raise DeployError(
            f"input size {input_size[0]}x{input_size[1]} is below 32x32: use a larger one"
        )
    if max(input_size) > MAX_SIDE:
        raise DeployError(
            f"input size {input_size[0]}x{input_size[1]} is above {MAX_SIDE}x{MAX_SIDE}: use a "
            "smaller one"
        )
    target = resolve_target(variant, out)
    with hold(target.folder, progress):
        with progress.step(f"export {variant}") as step:
            data = find_named_data_set(voc_root)
            count = None if data is None else len(data.classes)
            module, source = models.build_with_weights(variant, weights, count)
            classes = name_classes(module, source, data)
            metadata = _describe_export(variant, module, source, classes, fit)
            key = stage_key("export", size=input_size, **metadata)
            reused = not force and read_sealed_graph(target.fp32, key) is not None
            if reused:
                step.note = REUSED
            else:
                model = export_onnx(module, input_size)
                set_metadata(model, metadata)
        difference, simplified = None, None
        if not reused:
            with progress.step(f"simplify {variant}"):
                simplified = simplify_onnx(model)
                difference = compare_with_torch(simplified.model, module, input_size)
                sealed = seal_graph(simplified.model, key)
                write_whole(target.fp32, sealed.SerializeToString(deterministic=True))
        wrapped = write_wrapped(target.fp32, interface or Interface())
    return ExportedGraph(
        variant=variant,
        path=target.fp32,
        weights=str(source),
        classes=classes,
        difference=difference,
        simplified=simplified,
        reused=reused,
        wrapped=wrapped,
    )


def _describe_export(
    variant: str,
    module: nn.Module,
    source: models.WeightsSource,
    classes: Sequence[str],
    fit: Fit,
) -> dict[str, str]:
    """Return the metadata of an exported graph (docs/formats.md)."""
    return {
        "variant": variant,
        "weights": str(source),
        "weights_sha256": models.state_dict_hash(module),
        "classes": ",".join(classes),
        "mean": json.dumps(MEAN),
        "std": json.dumps(STD),
        "fit": fit.value,
    }


def simplify(path: Path, output: Path | None = None) -> SimplifiedGraph:
    """Simplify an ONNX file into ``output``, by default ``<stem>-simplified.onnx`` beside it.

    Raises:
        GraphError: the file is no valid graph or cannot be simplified.
        ExportError: the result computes something else.
        DeployError: the file cannot be written.
    """
    model = read_graph(path)
    refuse_wrapped(model, path, "simplify the graph without these")
    with naming(path):
        simplified = simplify_onnx(model)
    write_whole(
        output or path.with_name(f"{path.stem}-simplified.onnx"),
        simplified.model.SerializeToString(),
    )
    return simplified


def quantize(
    targets: Sequence[str] = (),
    *,
    fp16: bool = True,
    int8: bool = True,
    fp16_sqnr: float = MIN_FP16_SQNR,
    method: RangeConfig | None = None,
    target: str = DEFAULT_TARGET,
    recipe: RecipeName = RecipeName.FAST,
    levers: Levers | None = None,
    gate: Gate | None = None,
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
    progress: Progress | None = None,
) -> list[QuantizedGraph | VaccRecipe]:
    """Calibrate and quantize variants or ONNX files into ``<out>/<name>/{fp16,int8}.onnx``.

    The INT8 graph for another target than the default one is ``int8-<target>.onnx``; vacc gets a
    folder ``vacc`` in its place. A graph that is there already, made from the same, is kept.

    Args:
        targets: variant ids or paths; by default every variant exported so far, or else the default
            one. A variant that has no graph yet is exported first.
        fp16: write the half-precision graph.
        int8: write the 8-bit graph.
        fp16_sqnr: dB that the half-precision graph's logits shall keep on calibration images; as
            many of its first nodes stay FP32 as that takes, up to a quarter of all.
        method: how ranges are chosen; by default the full range seen (vacc: KL divergence).
        target: the toolchain that the INT8 graph is for (docs/targets.md).
        recipe: which accuracy levers are used (docs/accuracy.md); "auto" needs a gate.
        levers: single levers set by hand.
        gate: what INT8 may cost. Where it is missed the graph is named ``int8-missed.onnx``.
        images: how many images of ``split`` calibrate, evenly spaced over its list.
        split: the list they come from.
        fit: how they become inputs; by default as the graph's metadata say, else crop.
        calibration: a file that :func:`calibrate` wrote for the one target, in place of images.
        interface: what each graph that is written shall take and give in one more file beside it.
        voc_root: see :func:`calibration.find_voc_root`.
        skip_bad: leave images out that cannot be used; else the first of them is an error.
        weights: a checkpoint, if a variant must be exported first.
        out: the folder of the artifacts.
        force: calibrate and quantize anew, whatever is there.
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
    profile = None if target == VACC else find_profile(target)
    if int8 and profile is None and not interface.is_plain:
        raise DeployError(f"{target} takes the plain float graph: leave out head and preprocessing")
    names = list(targets) or exported_variants(out) or [models.DEFAULT_VARIANT]
    if calibration and len(names) != 1:
        raise DeployError(f"a calibration is of one graph, not of {len(names)}: name the target")
    if calibration and int8 and profile is None:
        raise DeployError(f"{target} calibrates on images by itself: leave out the calibration")
    given = ((str(calibration), read_calibration(calibration)),) if calibration else ()
    without_images = bool(given) and voc_root is None and lacks_voc()
    source = (
        None
        if without_images
        else CalibrationSource.find(voc_root, split, images, skip_bad=skip_bad)
    )
    if gate and source is None:
        raise DeployError("a gate is held on images: name their folder with --voc-root")
    evaluated = None
    if gate and source:
        source = source.screen_others(gate.images) if skip_bad else source
        evaluated = evaluation.EvaluationSet.find(
            voc_root, EVALUATION_SPLIT, None, skip_bad=skip_bad
        )
    job = QuantizationJob(
        fp16=fp16,
        int8=int8,
        recipes=recipes,
        source=source,
        given=given,
        profile=profile,
        method=method,
        fp16_sqnr=fp16_sqnr,
        gate=gate,
        evaluated=evaluated.samples if evaluated else (),
        fit=fit,
        force=force,
    )
    written: list[QuantizedGraph | VaccRecipe] = []
    for model in (resolve_target(name, out) for name in names):
        with hold(model.folder, progress):
            _export_if_missing(model, weights, out, fit, voc_root, progress)
            written += [
                add_wrapped(graph, interface) if isinstance(graph, QuantizedGraph) else graph
                for graph in quantize_target(model, job, progress)
            ]
    return written


def _export_if_missing(
    target: Target,
    weights: Path | None,
    out: Path,
    fit: Fit | None,
    voc_root: Path | None,
    progress: Progress,
) -> None:
    """Export a variant that has no float graph yet."""
    if target.is_variant and not target.fp32.is_file():
        export(
            target.name,
            weights=weights,
            out=out,
            fit=fit or Fit.CROP,
            voc_root=voc_root,
            progress=progress,
        )


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
        voc_root: see :func:`calibration.find_voc_root`.
        skip_bad: leave images out that cannot be used; else the first of them is an error.
        weights: a checkpoint, if a variant must be exported first.
        out: the folder of the artifacts.
        force: calibrate anew, though the file is there.
        progress: where to show what is going on.

    Raises:
        DeployError, ModelError, DataError, CalibrationError: what keeps it from being done.
    """
    progress = progress or SilentProgress()
    source = CalibrationSource.find(voc_root, split, images, part, skip_bad=skip_bad)
    found = resolve_target(target, out)
    with hold(found.folder, progress):
        _export_if_missing(found, weights, out, fit, voc_root, progress)
        prepared = prepare(found, source, fit, progress, force=force)
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
    found = resolve_target(target, out)
    with hold(found.folder, SilentProgress()):
        prepared = prepare_with(found, [(str(p), read_calibration(p)) for p in parts])
        write_whole(found.calibration, prepared.calibration.to_json())
    return CalibrationFile.of(prepared, found.calibration, reused=False)


def lint(path: Path, target: str | None = None) -> LintedGraph:
    """Check a QDQ graph against the rules of a target, by default the one its metadata name.

    Raises:
        DeployError: there is no such target.
        GraphError: the file is no valid graph, or no QDQ graph that can be checked.
    """
    model = read_graph(path)
    target = target or read_metadata(model).get("target", DEFAULT_TARGET)
    with naming(path):
        return LintedGraph(path=path, target=target, findings=lint_graph(model, target))


def validate(
    targets: Sequence[str] = (),
    *,
    split: str = "val",
    limit: int | None = None,
    protocol: Protocol | None = None,
    baseline: str | None = None,
    runtime: Runtime = Runtime.ONNXRUNTIME,
    voc_root: Path | None = None,
    skip_bad: bool = False,
    weights: Path | None = None,
    out: Path = DEFAULT_OUT,
    force: bool = False,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Measure variants (torch and every graph of theirs) and ONNX files on the images of a split.

    A variant's results are kept in ``<out>/<variant>/validation.json`` for the report, pictures of
    the images on which its INT8 graph differs most from torch in ``examples/`` beside it; where
    they are there already, of the same graphs, images and machine, they are returned as they are.

    Args:
        targets: variant ids or paths; by default every variant exported so far.
        split: the list of images.
        limit: how many of them, evenly spaced over the list; by default all.
        protocol: by default the graph's own fit, else crop.
        baseline: variant whose torch network ONNX files are compared with; by default the one that
            their metadata name.
        runtime: what runs the graphs; OpenVINO is installed apart.
        voc_root: see :func:`calibration.find_voc_root`.
        skip_bad: leave images out that cannot be used; else the first of them is an error.
        weights: the checkpoint of the torch baseline, if it was exported from one given by path.
        out: the folder of the artifacts.
        force: measure anew, though the results are there.
        progress: where to show what is going on.

    Returns:
        A dictionary for each target, as in ``validation.json`` (docs/formats.md).

    Raises:
        DeployError, ModelError, DataError, CalibrationError: what keeps it from being done.
    """
    progress = progress or SilentProgress()
    if runtime is Runtime.OPENVINO:
        load_openvino()
    data = evaluation.EvaluationSet.find(voc_root, split, limit, skip_bad=skip_bad)
    names = list(targets) or exported_variants(out)
    if not names:
        raise DeployError(f"nothing is exported to {out} yet: run 'deploy export' or name a target")
    results = []
    for target in (resolve_target(name, out) for name in names):
        measure = partial(
            evaluation.measure, target, data, protocol, baseline, weights, runtime, progress
        )
        if not target.is_variant:
            results.append(measure().result)
            continue
        with hold(target.folder, progress):
            key = evaluation.validation_key(target, data, protocol, weights, runtime)
            result = None if force else read_kept(target, key)
            if result is None:
                measured = measure()
                result = seal_json(measured.result, key)
                write_results(target, result, measured.pictures)
            else:
                with progress.step(f"validate {target.name}") as step:
                    step.note = REUSED
        results.append(result)
    return results


def report(
    variants: Sequence[str] = (),
    *,
    compare: Path | None = None,
    tolerance: float = TOLERANCE,
    out: Path = DEFAULT_OUT,
) -> Report:
    """Write ``<out>/report/report.{json,md,html}`` from the validation results and return them.

    Args:
        variants: by default all that were validated.
        compare: the report.json of an earlier run, to say what changed since.
        tolerance: points of mIoU (of agreement, where parameters are random) that a graph may lose
            against that one; what loses more is in ``comparison.regressions``.
        out: the folder of the artifacts.

    Raises:
        ReportError: there are no results, they are of different images or protocols, or ``compare``
            is no report that compares with them.
    """
    earlier = None if compare is None else read_earlier(compare)
    targets = [resolve_target(name, out) for name in variants or models.VARIANTS]
    if not variants:
        targets = [target for target in targets if target.validation.is_file()]
    results = {target: read_results(target) for target in targets}
    content = build_report(list(results.values()))
    if compare is not None and earlier is not None:
        changes = compare_reports(earlier, content, file=compare.name, tolerance=tolerance)
        content["comparison"] = changes
    pictures = {target.name: read_pictures(target, result) for target, result in results.items()}
    with hold(out / "report", SilentProgress()):
        write_report(content, out / "report", pictures)
    return content


def export_all(
    variants: Sequence[str] = (),
    *,
    method: RangeConfig | None = None,
    images: int = 50,
    limit: int | None = 50,
    input_size: Size = DEFAULT_SIZE,
    protocol: Protocol = Protocol.CROP,
    voc_root: Path | None = None,
    skip_bad: bool = False,
    out: Path = DEFAULT_OUT,
    force: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Do the whole job for every variant: export, quantize, validate, report.

    Where there is no VOC2012 (see :func:`calibration.find_voc_root`), scenes are drawn once under
    ``data/scenes`` and serve in its place. A run that was stopped goes on after the last stage that
    was finished; ``force`` makes it begin anew.

    Raises:
        DeployError, ModelError, DataError, CalibrationError: what keeps it from being done.
    """
    progress = progress or SilentProgress()
    names = list(variants or models.VARIANTS)
    if voc_root is None and lacks_voc():
        with progress.step("draw scenes"):
            voc_root = write_scenes(SCENES, train=SCENES_COUNT, val=SCENES_COUNT, seed=SCENES_SEED)
    # without data there is no use in starting
    data = evaluation.EvaluationSet.find(voc_root, "val", limit, skip_bad=skip_bad).data
    for name in names:
        if data.own and models.find_weights(name).trained:
            models.build_with_weights(name, num_classes=len(data.classes))  # nor for other classes
    for name in names:
        with hold(resolve_target(name, out).folder, progress):
            export(
                name,
                out=out,
                input_size=input_size,
                fit=protocol.fit,
                voc_root=voc_root,
                force=force,
                progress=progress,
            )
            quantize(
                [name],
                method=method,
                images=images,
                voc_root=voc_root,
                skip_bad=skip_bad,
                out=out,
                force=force,
                progress=progress,
            )
            validate(
                [name],
                limit=limit,
                protocol=protocol,
                voc_root=voc_root,
                skip_bad=skip_bad,
                out=out,
                force=force,
                progress=progress,
            )
    return report(names, out=out)
