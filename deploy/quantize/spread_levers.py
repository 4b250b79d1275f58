"""The levers on weights on a cluster: an item is a run of neighbouring convolutions.

A convolution's moments are sums of floats over images, whose order counts. So they are summed where
the convolution is rounded, in the images' order, and only what becomes of its weights comes back.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from safetensors.numpy import load, save

from deploy.calibration import Fit, Sample, preprocess
from deploy.calibration.preprocess import Float32Array, Size
from deploy.calibration.voc import read_image
from deploy.cluster.client import Cluster
from deploy.cluster.jobs import File, Slot, Work
from deploy.graph.graph import Graph
from deploy.progress import Progress
from deploy.quantize.int8 import QuantizedWeight
from deploy.quantize.moments import patch_size
from deploy.quantize.weights import ImprovedWeights, improve_weights
from deploy.runtimes.thread_counts import threads_for

Q, SCALE, BIAS, GAIN = "q:", "scale:", "bias:", "gain:"  # before a node's name
EACH_SLOT = 2  # items, so that one that takes long does not leave the others idle


@dataclass(frozen=True, kw_only=True)
class LeversJob:
    """Improve weights; see :func:`deploy.quantize.weights.improve_weights`."""

    graph: File
    weights: File  # of all convolutions, rounded to the nearest
    images: tuple[File, ...]
    fit: Fit
    size: Size
    threads: int | None  # None: the slot's
    settings: tuple[tuple[str, Any], ...]

    def open(self, slot: Slot) -> Work:
        """Return what improves the weights of some convolutions."""
        graph = Graph(onnx.load(slot.path(self.graph)))
        weights = unpack(slot.path(self.weights).read_bytes()).weights

        def work(names: tuple[str, ...]) -> bytes:
            images = read_inputs_of(self.images, slot, self.fit, self.size)
            settings: dict[str, Any] = dict(self.settings)
            threads = self.threads or slot.threads
            return pack(
                improve_weights(
                    graph, weights, images, **settings, only=set(names), threads=threads
                )
            )

        return work


@dataclass(frozen=True, kw_only=True)
class LeversOn:
    """A cluster in the place of :func:`improve_weights`."""

    cluster: Cluster
    samples: Sequence[Sample]  # the images
    fit: Fit
    folder: Path  # of the network
    stage: str
    progress: Progress

    def improve(
        self,
        graph: Graph,
        weights: Mapping[str, QuantizedWeight],
        images: Sequence[Float32Array],
        *,
        only: Collection[str] | None = None,
        **settings: Any,
    ) -> ImprovedWeights:
        """Return what :func:`improve_weights` does, of the images that are in files, too.

        Raises:
            ClusterError: as :meth:`Cluster.map`.
            GraphError, DataError: as improving does.
        """
        cluster, folder = self.cluster, self.folder
        nearest = ImprovedWeights(weights=dict(weights), biases={}, gain_db={})
        job = LeversJob(
            graph=cluster.put_graph(folder, graph.model),
            weights=cluster.put(folder, pack(nearest), ".safetensors"),
            images=tuple(cluster.file(sample.image) for sample in self.samples),
            fit=self.fit,
            size=graph.input_size,
            threads=threads_for(graph.model),
            settings=tuple(settings.items()),
        )
        wanted = set(weights) if only is None else set(only)
        nodes = [n for n in graph.model.graph.node if n.name in wanted]
        items = in_runs(
            {node.name: patch_size(graph, node) ** 3 for node in nodes}, EACH_SLOT * cluster.slots
        )
        improved = ImprovedWeights(weights={}, biases={}, gain_db={})
        for _, result in cluster.map(job, items, self.stage, self.progress, folder):
            found = unpack(result)
            improved.weights.update(found.weights)
            improved.biases.update(found.biases)
            improved.gain_db.update(found.gain_db)
        return improved


def in_runs(costs: Mapping[str, float], count: int) -> list[tuple[str, ...]]:
    """Return names in about ``count`` runs of like cost, in their order.

    Neighbours need the same part of the network; which runs there are changes no result.
    """
    limit = sum(costs.values()) / max(1, count)
    runs: list[list[str]] = []
    spent = 0.0
    for name, cost in costs.items():
        if not runs or spent + cost > limit:
            runs.append([])
            spent = 0.0
        runs[-1].append(name)
        spent += cost
    return [tuple(run) for run in runs]


def read_inputs_of(files: Sequence[File], slot: Slot, fit: Fit, size: Size) -> list[Float32Array]:
    """Return network inputs (1, 3, H, W); raises DataError."""
    return [preprocess(read_image(slot.path(file)), fit, size) for file in files]


def pack(improved: ImprovedWeights) -> bytes:
    """Return weights, biases and gains as bytes."""
    weights = improved.weights.items()
    return save(
        {f"{Q}{name}": np.ascontiguousarray(weight.q) for name, weight in weights}
        | {f"{SCALE}{name}": np.asarray(weight.scale) for name, weight in weights}
        | {f"{BIAS}{name}": np.ascontiguousarray(b) for name, b in improved.biases.items()}
        | {f"{GAIN}{name}": np.array([gain]) for name, gain in improved.gain_db.items()}
    )


def unpack(content: bytes) -> ImprovedWeights:
    """Return what :func:`pack` was given."""
    arrays = load(content)

    def named(prefix: str) -> dict[str, Any]:
        return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}

    scales = named(SCALE)
    return ImprovedWeights(
        weights={name: QuantizedWeight(q=q, scale=scales[name]) for name, q in named(Q).items()},
        biases=named(BIAS),
        gain_db={name: float(gain[0]) for name, gain in named(GAIN).items()},
    )
