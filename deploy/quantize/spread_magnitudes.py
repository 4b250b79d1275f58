"""How large tensors become that half precision has to hold, on a cluster: an image is an item."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from deploy.calibration import Fit, preprocess
from deploy.calibration.preprocess import Size
from deploy.calibration.voc import read_image
from deploy.cluster.client import Cluster
from deploy.cluster.jobs import File, Slot, Work
from deploy.graph.graph import Graph
from deploy.progress import Progress
from deploy.quantize.calibration_source import CalibrationSource
from deploy.quantize.half_ranges import MagnitudeMeter, largest
from deploy.runtimes.thread_counts import threads_for


@dataclass(frozen=True, kw_only=True)
class MagnitudesJob:
    """Measure tensors; see :func:`deploy.quantize.half_ranges.measure_magnitudes`."""

    graph: File
    tensors: tuple[str, ...]
    fit: Fit
    size: Size
    threads: int | None  # None: the slot's

    def open(self, slot: Slot) -> Work:
        """Return what gives the magnitudes in one image."""
        graph = Graph(onnx.load(slot.path(self.graph)))
        meter = MagnitudeMeter(graph, self.tensors, self.threads or slot.threads)

        def work(file: File) -> bytes:
            return meter(preprocess(read_image(slot.path(file)), self.fit, self.size)).tobytes()

        return work


def measure_magnitudes_on(
    cluster: Cluster,
    graph: Graph,
    tensors: Sequence[str],
    source: CalibrationSource,
    fit: Fit,
    progress: Progress,
    stage: str,
    folder: Path,
) -> dict[str, float]:
    """Return what measure_magnitudes does over a source's images.

    Raises:
        ClusterError: as :meth:`Cluster.map`.
        CalibrationError, DataError: as measuring and reading do.
    """
    job = MagnitudesJob(
        graph=cluster.put_graph(folder, graph.model),
        tensors=tuple(tensors),
        fit=fit,
        size=graph.input_size,
        threads=threads_for(graph.model),
    )
    items = [cluster.file(sample.image) for sample in source.samples]
    found = cluster.map(job, items, stage, progress, folder)
    return largest(tensors, (np.frombuffer(content, np.float32) for _, content in found))
