"""From graphs to figures: validate → report."""

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from deploy import models
from deploy.cluster.client import Cluster, forget, use_cluster
from deploy.errors import DeployError
from deploy.progress import REUSED, Progress, SilentProgress
from deploy.report.build import Report, build_report
from deploy.report.compare import TOLERANCE, compare_reports, read_earlier
from deploy.report.write import write_report
from deploy.runtimes.open import find_backend
from deploy.runtimes.runner import Runtime
from deploy.store.artifacts import (
    DEFAULT_OUT,
    exported_variants,
    resolve_network,
    resolve_networks,
)
from deploy.store.locks import hold
from deploy.store.reuse import seal_json
from deploy.validate import evaluation
from deploy.validate.evaluation_set import EvaluationSet
from deploy.validate.protocol import Protocol
from deploy.validate.results import read_kept, read_pictures, read_results, write_results


def validate(
    targets: Sequence[str] = (),
    *,
    split: str = "val",
    limit: int | None = None,
    protocol: Protocol | None = None,
    baseline: str | None = None,
    runtime: Runtime = Runtime.ONNXRUNTIME,
    soc: str | None = None,
    voc_root: Path | None = None,
    skip_bad: bool = False,
    weights: Path | None = None,
    out: Path = DEFAULT_OUT,
    force: bool = False,
    cluster: Cluster | str | None = None,
    ship: bool = False,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Measure variants (torch and every graph of theirs) and ONNX files on the images of a split.

    A variant's results are kept in ``<out>/<variant>/validation.json`` for the report, pictures of
    the images on which its INT8 graph differs most from torch in ``examples/`` beside it; those of
    another runtime in ``validation-<runtime>.json``, without pictures. Where they are there
    already, of the same graphs, images and machine, they are returned as they are.

    Args:
        targets: variant ids or paths; by default every variant exported so far.
        split: the list of images.
        limit: how many of them, evenly spaced over the list; by default all.
        protocol: by default the graph's own fit, else crop.
        baseline: variant whose torch network ONNX files are compared with; by default the one that
            their metadata name.
        runtime: what runs the graphs; all but onnxruntime are installed apart.
        soc: the chip, of a runtime that emulates several.
        voc_root: see :func:`deploy.calibration.find_voc_root`.
        skip_bad: leave images out that cannot be used; else the first of them is an error.
        weights: the checkpoint of the torch baseline, if it was exported from one given by path.
        out: the folder of the artifacts.
        force: measure anew, though the results are there.
        cluster: a Dask cluster that does the images: a scheduler's address or file, or "local[:N]"
            (docs/cluster.md); by default this process does.
        ship: send its workers the files that they lack.
        progress: where to show what is going on.

    Returns:
        A dictionary for each target, as in ``validation.json`` (docs/formats.md).

    Raises:
        DeployError, ModelError, DataError, CalibrationError: what keeps it from being done.
    """
    progress = progress or SilentProgress()
    backend = find_backend(runtime, soc)
    data = EvaluationSet.find(voc_root, split, limit, skip_bad=skip_bad)
    names = list(targets) or exported_variants(out)
    if not names:
        raise DeployError(f"nothing is exported to {out} yet: run 'deploy export' or name a target")
    results = []
    with use_cluster(cluster, progress, ship=ship) as found:
        for target in resolve_networks(names, out):
            measure = partial(
                evaluation.measure,
                *(target, data, protocol, baseline, weights, backend, progress),
                cluster=found,
            )
            if not target.is_variant:  # nothing of it is kept, but what a cluster does meanwhile
                with hold(target.folder, progress) if found else nullcontext():
                    results.append(measure().result)
                    forget(target.folder)
                continue
            with hold(target.folder, progress):
                key = evaluation.validation_key(target, data, protocol, weights, backend)
                path = target.validation_in(backend.runtime, backend.soc)
                result = None if force else read_kept(target, path, key)
                if result is None:
                    measured = measure()
                    result = seal_json(measured.result, key)
                    write_results(target, path, result, measured.pictures)
                    forget(target.folder)
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
    targets = [resolve_network(name, out) for name in variants or models.VARIANTS]
    if not variants:
        targets = [target for target in targets if target.validation.is_file()]
    results = {target: read_results(target) for target in targets}
    elsewhere = {
        target.name: [read_results(target, path) for path in target.measured_elsewhere]
        for target in targets
    }
    content = build_report(list(results.values()), elsewhere)
    if compare is not None and earlier is not None:
        changes = compare_reports(earlier, content, file=compare.name, tolerance=tolerance)
        content["comparison"] = changes
    pictures = {target.name: read_pictures(target, result) for target, result in results.items()}
    with hold(out / "report", SilentProgress()):
        write_report(content, out / "report", pictures)
    return content
