"""A float graph made ready for quantization: read, looked over, calibrated."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from deploy.calibration import (
    Calibration,
    CalibrationError,
    CalibrationKey,
    Fit,
    Sample,
    merge_calibrations,
    observe,
    preprocess,
    read_calibration,
)
from deploy.calibration.observe import SAMPLES
from deploy.calibration.preprocess import Float32Array
from deploy.calibration.statistics import TensorStatistics
from deploy.calibration.voc import pick, read_image
from deploy.cluster.client import Cluster
from deploy.export.heads import refuse_wrapped
from deploy.graph.canonical import canonical
from deploy.graph.graph import Graph, with_node_names
from deploy.graph.metadata import read_fit, read_metadata
from deploy.graph.reading import naming, read_graph
from deploy.progress import REUSED, Progress
from deploy.quantize.calibration_source import CalibrationSource
from deploy.quantize.placement import Placement, place
from deploy.quantize.spread_statistics import observe_on
from deploy.store.artifacts import Network
from deploy.store.environment import default_threads
from deploy.store.files import write_whole
from deploy.store.memory import give_back
from deploy.targets import DEFAULT_TARGET, PROFILES


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A float graph that is ready to be quantized."""

    target: Network
    graph: Graph
    placement: Placement  # of the default profile: it observes what any needs
    calibration: Calibration
    reused: bool  # the calibration was on disk already
    skipped: tuple[str, ...] = ()  # bad images that were left out of it
    force: bool = False  # make anew what is there
    cluster: Cluster | None = None  # that does what can be spread


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


def prepare(
    target: Network,
    source: CalibrationSource,
    fit: Fit | None,
    progress: Progress,
    *,
    force: bool = False,
    cluster: Cluster | None = None,
) -> Prepared:
    """Read a target's float graph and calibrate it, unless its calibration is there already.

    Args:
        target: whose graph.
        source: the images.
        fit: how they become inputs; by default as the graph's metadata say, else crop.
        progress: where to show what is going on.
        force: calibrate, whatever is there.
        cluster: observes the images; by default this process.

    Raises:
        GraphError: the graph cannot be read or quantized.
        CalibrationError: its statistics cannot be collected.
    """
    graph, placement = _read_float_graph(target)
    fit = fit or read_fit(read_metadata(graph.model), target.fp32)
    path, stage = source.path(target), f"calibrate {target.name}"
    with naming(target.fp32):
        calibration, reused = _calibrate(
            path, graph, source, fit, progress, stage, force=force, cluster=cluster
        )
    return Prepared(
        target=target,
        graph=graph,
        placement=placement,
        calibration=calibration,
        reused=reused,
        skipped=source.skipped,
        force=force,
        cluster=cluster,
    )


def calibrate_equalized(
    prepared: Prepared, graph: Graph, source: CalibrationSource, progress: Progress
) -> Calibration:
    """Return the calibration of the equalized graph, unless it is there already."""
    target, fit = prepared.target, prepared.calibration.key.fit
    path, stage = target.equalized_calibration, f"equalize {target.name}"
    force, cluster = prepared.force, prepared.cluster
    return _calibrate(path, graph, source, fit, progress, stage, force=force, cluster=cluster)[0]


def _calibrate(
    path: Path,
    graph: Graph,
    source: CalibrationSource,
    fit: Fit,
    progress: Progress,
    stage: str,
    *,
    force: bool,
    cluster: Cluster | None,
) -> tuple[Calibration, bool]:
    """Return the calibration of a graph, and whether it was there already."""
    key = CalibrationKey(
        graph_sha256=graph.sha256,
        fit=fit,
        images=source.images,
        samples_per_tensor=SAMPLES,
    )
    found = None if force else _find_calibration(path, key)
    if found is not None:
        with progress.step(stage) as step:
            step.note = REUSED
        return found, True
    tensors = observe_graph(graph, source, fit, progress, stage, cluster, path.parent)
    calibration = Calibration(key=key, tensors=tensors)
    write_whole(path, calibration.to_json())
    return calibration, False


def _find_calibration(path: Path, key: CalibrationKey) -> Calibration | None:
    """Return the calibration at ``path`` if it can be read and is the one of that key."""
    with suppress(CalibrationError):  # cut off, or of another format: made anew
        found = read_calibration(path)
        return found if found.key == key else None
    return None


def prepare_with(
    target: Network, parts: Sequence[tuple[str, Calibration]], fit: Fit | None = None
) -> Prepared:
    """Read a target's float graph and join it with a calibration, or with the parts of one.

    Raises:
        GraphError: the graph cannot be read or quantized.
        CalibrationError: a part, by its name, is of another graph or fit, or cannot be merged.
    """
    graph, placement = _read_float_graph(target)
    for name, part in parts:
        if part.key.graph_sha256 != graph.sha256:
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


def _read_float_graph(target: Network) -> tuple[Graph, Placement]:
    model = read_graph(target.fp32)
    refuse_wrapped(
        model,
        target.fp32,
        "quantize the plain graph; --head and --embed-preprocessing give its INT8 the same",
    )
    with naming(target.fp32):
        graph = Graph(with_node_names(canonical(model)))
        graph.check_float()
        del model
        give_back()
        return graph, place(graph, PROFILES[DEFAULT_TARGET])


def observe_graph(
    graph: Graph,
    source: CalibrationSource,
    fit: Fit,
    progress: Progress,
    label: str,
    cluster: Cluster | None = None,
    folder: Path = Path(),
) -> dict[str, TensorStatistics]:
    """Return the statistics of all that may be quantized, over all calibration images.

    With a ``cluster``, ``folder`` is where what its workers have done is kept meanwhile.
    """
    placement = place(graph, PROFILES[DEFAULT_TARGET])
    tensors = {name: graph.shapes[name] for name in placement.observed}
    non_negative = placement.non_negative
    if cluster is not None:
        return observe_on(
            cluster, graph, tensors, source, fit, progress, label, folder, non_negative=non_negative
        )
    return observe(
        graph.model,
        tensors,
        source.inputs(fit, graph.input_size, progress, label),
        non_negative=non_negative,
        threads=default_threads(),
    )


def read_inputs(prepared: Prepared, source: CalibrationSource, count: int) -> list[Float32Array]:
    """Return network inputs (1, 3, H, W) of ``count`` calibration images, or of all there are."""
    fit, size = prepared.calibration.key.fit, prepared.graph.input_size
    samples = input_samples(source, count)
    return [preprocess(read_image(sample.image), fit, size) for sample in samples]


def input_samples(source: CalibrationSource, count: int) -> list[Sample]:
    """Return which images :func:`read_inputs` reads."""
    return pick(source.samples, min(count, len(source.samples))) if count else []
