"""Graphs times images on a cluster: an image is an item, its scores come back, not its logits.

All networks are open on a slot at once, so that an image is read once and no logits travel; what
they score is added up here, in the order of the images, as one process adds it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from deploy import models
from deploy.calibration.preprocess import Float32Array, Size
from deploy.calibration.voc import Sample
from deploy.cluster.client import Cluster, in_order
from deploy.cluster.jobs import File, Slot, Work
from deploy.progress import Progress
from deploy.runtimes.onnxruntime import OnnxRunner
from deploy.runtimes.open import find_backend, open_graph
from deploy.runtimes.runner import Backend, Execution, Runner, Runtime
from deploy.runtimes.thread_counts import threads_for
from deploy.store.environment import default_threads
from deploy.validate.default_options import with_defaults
from deploy.validate.evaluate import check_logits, read_view, score, tell_unlabelled
from deploy.validate.metrics import ConfusionMatrix, Fidelity
from deploy.validate.protocol import Protocol
from deploy.validate.scores import ImageScore, Score


@dataclass(frozen=True, kw_only=True)
class GraphOn:
    """A graph that a worker opens; without a runtime, in onnxruntime as it is.

    ``threads`` are those of the command's own process where results may depend on them
    (deploy/runtimes/thread_counts.py), None those of the slot.
    """

    file: File
    threads: int | None
    runtime: Runtime | None = None
    soc: str | None = None

    @classmethod
    def of(cls, cluster: Cluster, path: Path, backend: Backend) -> "GraphOn":
        """Return a graph's file in a runtime; raises DataError."""
        is_known = backend.runtime is Runtime.ONNXRUNTIME
        return cls(
            file=cluster.file(path),
            threads=threads_for(path) if is_known else default_threads(),
            runtime=backend.runtime,
            soc=backend.soc,
        )

    def open(self, slot: Slot) -> Runner:
        """Return the graph, ready to run in a slot's threads."""
        path, threads = slot.path(self.file), self.threads or slot.threads
        if self.runtime is None:
            return OnnxRunner(path, threads)
        return open_graph(path, find_backend(self.runtime, self.soc), threads, timed=False)


@dataclass(frozen=True, kw_only=True)
class TorchOn:
    """A variant in torch, with the parameters in a file.

    ``threads`` are those of the command's own process, not of the slot: oneDNN's convolutions add
    in another order for another number, and the last bits of the logits with them.
    """

    variant: str
    classes: int
    state: File
    threads: int

    @classmethod
    def of(
        cls, cluster: Cluster, variant: str, classes: int, module: nn.Module, folder: Path
    ) -> "TorchOn":
        """Return a variant's network; its parameters are in a network's folder meanwhile."""
        import torch
        from safetensors.torch import save

        state = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
        return cls(
            variant=variant,
            classes=classes,
            state=cluster.put(folder, save(state), ".safetensors"),
            threads=torch.get_num_threads(),
        )

    def open(self, slot: Slot) -> Runner:
        """Return the network, ready to run."""
        from safetensors.torch import load_file

        from deploy.runtimes.torch import TorchRunner

        module = models.build(self.variant, self.classes)
        module.load_state_dict(load_file(slot.path(self.state)))
        return _WithThreads(TorchRunner(module), self.threads)


class _WithThreads:
    """A torch network that runs in so many threads, whichever thread calls it."""

    def __init__(self, runner: Runner, threads: int) -> None:
        self.runner, self.threads, self.name = runner, threads, runner.name
        self.timed: Runner | None = None
        self.default: Runner | None = None

    def __call__(self, image: Float32Array) -> Float32Array:
        import torch

        torch.set_num_threads(self.threads)  # of this thread: OpenMP's is one for each
        return self.runner(image)

    def execution(self) -> Execution | None:
        """Return what the runner says."""
        return self.runner.execution()


@dataclass(frozen=True, kw_only=True)
class ImageOn:
    """An image with its mask; of one of them what computes in 8 bits is asked, too."""

    name: str
    image: File
    mask: File
    ignore: int
    asks_execution: bool


@dataclass(frozen=True, kw_only=True)
class EvaluationJob:
    """Score networks on images; see :func:`deploy.validate.evaluate.evaluate`."""

    networks: tuple[tuple[str, GraphOn | TorchOn], ...]
    protocol: Protocol
    size: Size
    baseline: str | None
    classes: int

    def open(self, slot: Slot) -> Work:
        """Return what gives an image's scores."""
        opened = {
            name: slot.keep(repr(network), partial(network.open, slot))
            for name, network in self.networks
        }
        runners = with_defaults(opened)

        def work(item: ImageOn) -> bytes:
            paths = {"image": slot.path(item.image), "mask": slot.path(item.mask)}
            sample = Sample(name=item.name, **paths, num_classes=self.classes, ignore=item.ignore)
            view = read_view(sample, self.protocol, self.size, self.classes)
            logits = {name: run(view.image) for name, run in runners.items()}
            for name, values in logits.items():
                check_logits(name, values, self.classes)
            labels = view.labels(logits)
            scores = {
                name: _plain(score(view, logits, labels, name, self.baseline, self.classes))
                for name in runners
            }
            content = {"scores": scores, "labelled": view.is_labelled}
            if item.asks_execution:
                found = {name: run.execution() for name, run in opened.items()}
                content["executions"] = {n: e and asdict(e) for n, e in found.items()}
            return json.dumps(content).encode()

        return work


@dataclass(kw_only=True)
class Spread:
    """What networks scored on all images.

    ``differing`` is the share of pixels of each image that have another label than the baseline's.
    """

    scores: dict[str, Score] = field(default_factory=dict)
    differing: dict[str, list[float]] = field(default_factory=dict)
    executions: dict[str, Execution | None] = field(default_factory=dict)


def evaluate_on(
    cluster: Cluster,
    networks: Mapping[str, GraphOn | TorchOn],
    samples: Sequence[Sample],
    *,
    protocol: Protocol,
    size: Size,
    baseline: str | None,
    classes: int,
    stage: str,
    progress: Progress,
    folder: Path,
) -> Spread:
    """Return what networks score on samples; nothing is timed.

    Raises:
        ClusterError: as :meth:`Cluster.map`.
        DataError, GraphError, DeployError: as evaluating and opening do.
    """
    job = EvaluationJob(
        networks=tuple(networks.items()),
        protocol=protocol,
        size=size,
        baseline=baseline,
        classes=classes,
    )
    items = [
        ImageOn(
            name=sample.name,
            image=cluster.file(sample.image),
            mask=cluster.file(sample.mask),
            ignore=sample.ignore,
            asks_execution=number == 0,
        )
        for number, sample in enumerate(samples)
    ]
    spread = Spread()
    for number, result in in_order(cluster.map(job, items, stage, progress, folder)):
        content = json.loads(result)
        if not content["labelled"]:
            tell_unlabelled(samples[number])
        for name, execution in content.get("executions", {}).items():
            spread.executions[name] = execution and Execution(**execution)
        for name, plain in content["scores"].items():
            image = _score(plain, classes)
            if name not in spread.scores:
                spread.scores[name] = Score(confusion=ConfusionMatrix(classes))
                spread.differing[name] = []
            spread.scores[name].add(image)
            pixels, equal = image.fidelity.pixels, image.fidelity.equal_pixels
            spread.differing[name].append((pixels - equal) / pixels if pixels else 0.0)
    return spread


def _plain(image: ImageScore) -> dict[str, Any]:
    """Return a score as JSON holds it, exactly: Python writes the digits that tell a float."""
    counts = image.counts.ravel()
    at = np.flatnonzero(counts)
    return {
        "at": at.tolist(),
        "counts": counts[at].tolist(),
        "fidelity": asdict(image.fidelity),
    }


def _score(plain: Mapping[str, Any], classes: int) -> ImageScore:
    counts = np.zeros(classes * classes, dtype=np.int64)
    counts[plain["at"]] = plain["counts"]
    return ImageScore(
        counts=counts.reshape(classes, classes), fidelity=Fidelity(**plain["fidelity"])
    )
