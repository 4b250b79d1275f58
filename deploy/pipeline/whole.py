"""The stages in order: export → simplify → calibrate → quantize → validate → report."""

from collections.abc import Sequence
from pathlib import Path

from deploy import models
from deploy.calibration import RangeConfig
from deploy.calibration.scenes import write_scenes
from deploy.calibration.voc import lacks_voc
from deploy.cluster.client import Cluster, use_cluster
from deploy.pipeline.exporting import DEFAULT_SIZE, Size, export
from deploy.pipeline.measuring import report, validate
from deploy.pipeline.quantizing import quantize
from deploy.progress import Progress, SilentProgress
from deploy.report.build import Report
from deploy.store.artifacts import DEFAULT_OUT, resolve_network
from deploy.store.locks import hold
from deploy.store.memory import give_back
from deploy.validate.evaluation_set import EvaluationSet
from deploy.validate.protocol import Protocol

SCENES = Path("data/scenes")
SCENES_SEED = 2  # the parameters that ship were not trained on it
SCENES_COUNT = 100  # in each split
RANDOM_IMAGES = 2  # that show how closely graphs of random parameters follow torch


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
    cluster: Cluster | str | None = None,
    ship: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Do the whole job for every variant: export, quantize, validate, report.

    Where there is no VOC2012 (see :func:`deploy.calibration.find_voc_root`), scenes are drawn once
    under ``data/scenes`` and serve in its place. A run that was stopped goes on after the last
    stage that was finished; ``force`` makes it begin anew.

    A ``cluster`` does the images where it is given one, as for :func:`deploy.validate`.

    Variants with random parameters have no accuracy: RANDOM_IMAGES calibrate and evaluate them.

    Raises:
        DeployError, ModelError, DataError, CalibrationError: what keeps it from being done.
    """
    progress = progress or SilentProgress()
    names = list(variants or models.VARIANTS)
    if voc_root is None and lacks_voc():
        with progress.step("draw scenes"):
            voc_root = write_scenes(SCENES, train=SCENES_COUNT, val=SCENES_COUNT, seed=SCENES_SEED)
    # without data there is no use in starting
    data = EvaluationSet.find(voc_root, "val", limit, skip_bad=skip_bad).data
    for name in names:
        if data.own and models.find_weights(name).trained:
            models.build_with_weights(name, num_classes=len(data.classes))  # nor for other classes
    with use_cluster(cluster, progress, ship=ship) as found:
        for name in names:
            few = None if models.find_weights(name).trained else RANDOM_IMAGES
            with hold(resolve_network(name, out).folder, progress):
                export(
                    name,
                    out=out,
                    input_size=input_size,
                    fit=protocol.fit,
                    voc_root=voc_root,
                    force=force,
                    progress=progress,
                )
                give_back()
                quantize(
                    [name],
                    method=method,
                    images=min(images, few or images),
                    voc_root=voc_root,
                    skip_bad=skip_bad,
                    out=out,
                    force=force,
                    cluster=found,
                    progress=progress,
                )
                give_back()
                validate(
                    [name],
                    limit=limit if few is None else min(limit or few, few),
                    protocol=protocol,
                    voc_root=voc_root,
                    skip_bad=skip_bad,
                    out=out,
                    force=force,
                    cluster=found,
                    progress=progress,
                )
    return report(names, out=out)
