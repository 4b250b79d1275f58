"""The ranking of layers on a cluster: an item is a graph in which some convolutions are float."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from deploy.calibration import Fit, Sample
from deploy.calibration.preprocess import Size
from deploy.cluster.client import Cluster
from deploy.cluster.jobs import File, Slot, Work
from deploy.graph.graph import Graph
from deploy.progress import Progress
from deploy.quantize.plan import Int8Plan
from deploy.quantize.recipe import Recipe
from deploy.quantize.sensitivity import LayerHarm, convolutions_of, noise_energy, ranked
from deploy.quantize.spread_levers import pack, read_inputs_of, unpack
from deploy.runtimes.onnxruntime import OnnxRunner
from deploy.runtimes.thread_counts import threads_for
from deploy.targets import PROFILES


@dataclass(frozen=True, kw_only=True)
class RankingJob:
    """Measure the noise of an INT8 plan's graphs; see :func:`rank_layers`."""

    graph: File
    improved: File
    profile: str
    recipe: Recipe
    ranges: tuple[tuple[str, tuple[float, float]], ...]
    images: tuple[File, ...]
    fit: Fit
    size: Size
    threads: int | None  # None: the slot's

    def open(self, slot: Slot) -> Work:
        """Return what gives the noise of a graph."""
        graph = Graph(onnx.load(slot.path(self.graph)))
        plan = Int8Plan(
            graph=graph,
            profile=PROFILES[self.profile],
            recipe=self.recipe,
            ranges=dict(self.ranges),
            methods={},
            improved=unpack(slot.path(self.improved).read_bytes()),
        )
        images = read_inputs_of(self.images, slot, self.fit, self.size)

        def run(model: onnx.ModelProto) -> list[Any]:
            runner = OnnxRunner(model, self.threads or slot.threads)
            return [runner(image) for image in images]

        reference = run(graph.model)
        return lambda exclude: json.dumps(
            noise_energy(reference, run(plan.build(exclude)[0]))
        ).encode()


def rank_on(
    cluster: Cluster,
    plan: Int8Plan,
    samples: Sequence[Sample],
    fit: Fit,
    stage: str,
    progress: Progress,
    folder: Path,
) -> list[LayerHarm]:
    """Return what :func:`deploy.quantize.sensitivity.rank_layers` does.

    Args:
        cluster: where.
        plan: the INT8 graph's.
        samples: images that calibrated.
        fit: how they become inputs.
        stage: for the progress.
        progress: shows how many graphs are measured.
        folder: of the network.

    Raises:
        ClusterError: as :meth:`Cluster.map`.
        GraphError, DataError: as building and running do.
    """
    graph = plan.graph
    job = RankingJob(
        graph=cluster.put_graph(folder, graph.model),
        improved=cluster.put(folder, pack(plan.improved), ".safetensors"),
        profile=plan.profile.name,
        recipe=plan.recipe,
        ranges=tuple((name, (float(a), float(b))) for name, (a, b) in plan.ranges.items()),
        images=tuple(cluster.file(sample.image) for sample in samples),
        fit=fit,
        size=graph.input_size,
        threads=threads_for(graph.model, plan.build()[0]),
    )
    names = convolutions_of(plan)
    items: list[tuple[str, ...]] = [(), *((name,) for name in names)]
    found = dict(cluster.map(job, items, stage, progress, folder))
    base, *noises = (json.loads(found[number]) for number in range(len(items)))
    return ranked(base, dict(zip(names, noises, strict=True)))
