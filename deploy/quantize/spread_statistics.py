"""Statistics of a graph's tensors on a cluster: an image is an item, and all merge exactly."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from safetensors.numpy import load, save

from deploy.calibration import CalibrationError, Fit, TensorStatistics, preprocess
from deploy.calibration.observe import Observer, threads_a_stream
from deploy.calibration.preprocess import Size
from deploy.calibration.statistics import BINS
from deploy.calibration.voc import read_image
from deploy.cluster.client import Cluster
from deploy.cluster.jobs import File, Slot, Work
from deploy.graph.graph import Graph
from deploy.progress import Progress
from deploy.quantize.calibration_source import CalibrationSource, refuse_uniform
from deploy.runtimes.thread_counts import threads_for
from deploy.store.environment import default_threads

Item = tuple[int, File]  # an image's number, from 1, and its file


@dataclass(frozen=True, kw_only=True)
class StatisticsJob:
    """Observe a graph; see :func:`deploy.calibration.observe`."""

    graph: File
    tensors: tuple[tuple[str, tuple[int, ...]], ...]
    non_negative: tuple[str, ...]
    fit: Fit
    size: Size
    threads: int | None  # None: the slot's

    def open(self, slot: Slot) -> Work:
        """Return what gives the statistics of one image."""
        observer = Observer(
            onnx.load(slot.path(self.graph)),
            dict(self.tensors),
            non_negative=frozenset(self.non_negative),
            threads=self.threads or slot.threads,
        )

        def work(item: Item) -> bytes:
            number, file = item
            image = read_image(slot.path(file))
            statistics = observer.start()
            observer.add(number, preprocess(image, self.fit, self.size), statistics)
            return pack(statistics, varied=bool(np.ptp(image, axis=(0, 1)).any()))

        return work


def observe_on(
    cluster: Cluster,
    graph: Graph,
    tensors: Mapping[str, tuple[int, ...]],
    source: CalibrationSource,
    fit: Fit,
    progress: Progress,
    stage: str,
    folder: Path,
    *,
    non_negative: frozenset[str],
) -> dict[str, TensorStatistics]:
    """Return what :func:`deploy.calibration.observe` does over a source's images.

    Raises:
        ClusterError: as :meth:`Cluster.map`.
        DataError, CalibrationError: as observing does.
    """
    job = StatisticsJob(
        graph=cluster.put_graph(folder, graph.model),
        tensors=tuple(tensors.items()),
        non_negative=tuple(sorted(non_negative)),
        fit=fit,
        size=graph.input_size,
        threads=None if threads_for(graph.model) is None else threads_a_stream(default_threads()),
    )
    items = [(n, cluster.file(sample.image)) for n, sample in enumerate(source.samples, start=1)]
    if not items:
        raise CalibrationError("no images to calibrate with: give at least one")
    statistics = {name: TensorStatistics() for name in tensors}
    any_varied = False
    for _, result in cluster.map(job, items, stage, progress, folder):
        found, varied = unpack(result, list(tensors))
        any_varied = any_varied or varied
        for name, statistic in statistics.items():
            statistic.merge(found[name])
    refuse_uniform(any_varied, len(items))
    return statistics


def pack(statistics: Mapping[str, TensorStatistics], *, varied: bool) -> bytes:
    """Return statistics as bytes; empty bins at both ends of a histogram are left out."""
    all_used = [np.flatnonzero(statistic.counts) for statistic in statistics.values()]
    bounds = [(int(used[0]), int(used[-1]) + 1) for used in all_used]
    each = list(zip(statistics.values(), bounds, strict=True))
    counts = np.concatenate([s.counts[first:last] for s, (first, last) in each])
    table = [[s.channel_minimum.size, s.exponent, *bound] for s, bound in each]
    return save(
        {
            "varied": np.array([varied]),
            "table": np.array(table, np.int64),
            "minimum": np.concatenate([s.channel_minimum for s, _ in each]),
            "maximum": np.concatenate([s.channel_maximum for s, _ in each]),
            "counts": counts.astype(np.uint16 if counts.max() < 2**16 else np.int64),
        }
    )


def unpack(content: bytes, names: list[str]) -> tuple[dict[str, TensorStatistics], bool]:
    """Return what :func:`pack` was given, by the same names in the same order."""
    arrays = load(content)
    statistics = {}
    channel = bin_ = 0
    for name, row in zip(names, arrays["table"].tolist(), strict=True):
        channels, exponent, first, last = row
        counts = np.zeros(2 * BINS, dtype=np.int64)
        counts[first:last] = arrays["counts"][bin_ : bin_ + last - first]
        statistics[name] = TensorStatistics(
            channel_minimum=arrays["minimum"][channel : channel + channels],
            channel_maximum=arrays["maximum"][channel : channel + channels],
            exponent=exponent,
            counts=counts,
        )
        channel, bin_ = channel + channels, bin_ + last - first
    return statistics, bool(arrays["varied"][0])
