"""What a cluster costs: two workers beside two processes started by hand, image by image.

    python -m deploy.bench.cluster artifacts/rf-lw-mbv2 --voc-root DIR --images 24

Both do the same images with one thread each, in turns within one run, with all graphs open. A Dask
process takes a little of a core while it waits; that is measured apart and left out of CPU times,
which on a busy machine are the steadier figure. What the scheduler, a process of its own, and the
command take an item is measured on items that cost nothing but return as many bytes.
"""

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from deploy.calibration import Fit, Sample, preprocess
from deploy.calibration.observe import Observer
from deploy.calibration.voc import find_voc_root, pick, read_image, read_split
from deploy.cluster.client import Cluster, forget, use_cluster
from deploy.cluster.jobs import Slot, Work
from deploy.graph.graph import Graph
from deploy.graph.reading import read_graph
from deploy.progress import SilentProgress
from deploy.quantize.calibration_source import CalibrationSource
from deploy.quantize.placement import place
from deploy.quantize.spread_statistics import observe_on
from deploy.runtimes import onnxruntime
from deploy.runtimes.open import open_graph
from deploy.targets import DEFAULT_TARGET, PROFILES
from deploy.validate.evaluate import read_view, score
from deploy.validate.metrics import ConfusionMatrix
from deploy.validate.protocol import Protocol
from deploy.validate.scores import Score
from deploy.validate.spread_evaluation import GraphOn, evaluate_on

GRAPHS = ("fp32", "int8")
CLASSES = 21
IDLE_SECONDS = 5.0
ECHOES = 300  # items
RESULT_BYTES = {"calibrate": 600_000, "validate": 10_000}


def calibrate_by_hand(folder: Path) -> Callable[[Sequence[Sample]], None]:
    """Return what observes images in this process, in one thread."""
    graph = Graph(read_graph(folder / "fp32.onnx"))
    placement = place(graph, PROFILES[DEFAULT_TARGET])
    tensors = {name: graph.shapes[name] for name in placement.observed}
    observer = Observer(graph.model, tensors, non_negative=placement.non_negative)

    def work(samples: Sequence[Sample]) -> None:
        found = observer.start()
        for number, sample in enumerate(samples, start=1):
            image = read_image(sample.image)
            assert np.ptp(image, axis=(0, 1)).any()
            observer.add(number, preprocess(image, Fit.SQUASH, graph.input_size), found)

    return work


def validate_by_hand(folder: Path) -> Callable[[Sequence[Sample]], None]:
    """Return what scores images in this process, in one thread."""
    runners = {
        name: open_graph(folder / f"{name}.onnx", onnxruntime.BACKEND, 1, timed=False)
        for name in GRAPHS
    }
    runners |= {f"{n} default": r.default for n, r in runners.items() if r.default is not None}
    size = Graph(read_graph(folder / "fp32.onnx")).input_size

    def work(samples: Sequence[Sample]) -> None:
        scores = {name: Score(confusion=ConfusionMatrix(CLASSES)) for name in runners}
        for sample in samples:
            view = read_view(sample, Protocol.SQUASH, size, CLASSES)
            logits = {name: run(view.image) for name, run in runners.items()}
            labels = view.labels(logits)
            for name in runners:
                scores[name].add(score(view, logits, labels, name, GRAPHS[0], CLASSES))

    return work


def calibrate_on(cluster: Cluster, folder: Path, samples: list[Sample], at: Path) -> None:
    """Observe images on a cluster."""
    graph = Graph(read_graph(folder / "fp32.onnx"))
    placement = place(graph, PROFILES[DEFAULT_TARGET])
    tensors = {name: graph.shapes[name] for name in placement.observed}
    source = CalibrationSource(
        data=None,  # type: ignore[arg-type]
        split="val",
        samples=samples,
        images=(),
        others=[],
    )
    observe_on(
        *(cluster, graph, tensors, source, Fit.SQUASH, SilentProgress(), "calibrate", at),
        non_negative=placement.non_negative,
    )


def validate_on(cluster: Cluster, folder: Path, samples: list[Sample], at: Path) -> None:
    """Score images on a cluster."""
    evaluate_on(
        cluster,
        {
            name: GraphOn.of(cluster, folder / f"{name}.onnx", onnxruntime.BACKEND)
            for name in GRAPHS
        },
        samples,
        protocol=Protocol.SQUASH,
        size=Graph(read_graph(folder / "fp32.onnx")).input_size,
        baseline=GRAPHS[0],
        classes=CLASSES,
        stage="validate",
        progress=SilentProgress(),
        folder=at,
    )


STAGES = {
    "calibrate": (calibrate_by_hand, calibrate_on),
    "validate": (validate_by_hand, validate_on),
}


def _hand(stage: str, folder: Path, samples: list[Sample], pipe: Any) -> None:
    """Do a half of the images each time that it is asked to."""
    work = STAGES[stage][0](folder)
    work(samples[:1])
    pipe.send("ready")
    while pipe.recv():
        begun = time.process_time()
        work(samples)
        pipe.send(time.process_time() - begun)


@contextmanager
def by_hand(stage: str, folder: Path, samples: list[Sample]) -> Iterator[Callable[[], float]]:
    """Yield what has two processes do a half of the images each; it returns their CPU seconds."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for half in (samples[::2], samples[1::2]):
        own, other = context.Pipe()
        process = context.Process(target=_hand, args=(stage, folder, half, other), daemon=True)
        process.start()
        pipes.append(own)
        processes.append(process)
    assert [pipe.recv() for pipe in pipes] == ["ready"] * 2

    def run() -> float:
        for pipe in pipes:
            pipe.send(True)
        return float(sum(pipe.recv() for pipe in pipes))

    yield run
    for pipe in pipes:
        pipe.send(False)
    for process in processes:
        process.join()


@contextmanager
def own_cluster(folder: Path) -> Iterator[tuple[Cluster, list[Any]]]:
    """Yield a cluster of a scheduler and two workers of one slot, and their processes."""
    import psutil

    file = folder / "cluster.json"
    common = ("--scheduler-file", str(file), "--host", "127.0.0.1", "--no-dashboard")
    worker = [
        *("--nthreads", "1", "--no-nanny", "--memory-limit", "0"),
        *("--local-directory", str(folder)),
    ]
    started: list[subprocess.Popen[bytes]] = []

    def start(kind: str, *options: str) -> None:
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *common, *options]
        null = subprocess.DEVNULL
        environment = {**os.environ, "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False"}
        started.append(subprocess.Popen(command, stdout=null, stderr=null, env=environment))

    start("scheduler", "--port", "0")
    try:
        while not file.is_file():
            time.sleep(0.1)
        start("worker", *worker)
        start("worker", *worker)
        with use_cluster(str(file), SilentProgress()) as cluster:
            assert cluster is not None
            while cluster.slots < 2:
                time.sleep(0.1)
            yield cluster, [psutil.Process(process.pid) for process in started]
    finally:
        for process in reversed(started):
            process.kill()
            process.wait()


def cpu(process: Any) -> float:
    """Return the CPU seconds of a process."""
    times = process.cpu_times()
    return float(times.user + times.system)


@dataclass(frozen=True)
class EchoJob:
    """Return so many bytes, at no cost."""

    size: int

    def open(self, _slot: Slot) -> Work:
        """Return what does that."""
        return lambda _item: bytes(self.size)


def compare(stage: str, folder: Path, samples: list[Sample], repetitions: int) -> None:
    """Print what both take, in turns."""
    median = statistics.median
    with (
        tempfile.TemporaryDirectory() as name,
        by_hand(stage, folder, samples) as hand,
        own_cluster(Path(name)) as (cluster, processes),
    ):
        at = Path(name)
        there = partial(STAGES[stage][1], cluster, folder, at=at)
        there(samples[:4])
        forget(at)
        _, idle = _timed(processes, lambda: time.sleep(IDLE_SECONDS))
        idle = [seconds / IDLE_SECONDS for seconds in idle]  # of a core, each
        walls, cpus = [], []
        for _ in range(repetitions):
            begun = time.perf_counter()
            hand_cpu = hand()
            hand_wall = time.perf_counter() - begun
            wall, took = _timed(processes, lambda: there(samples))
            forget(at)
            workers = sum(t - wall * i for t, i in zip(took[1:3], idle[1:3], strict=True))
            walls.append(hand_wall / wall)
            cpus.append(hand_cpu / workers)
            print(
                f"{stage}: by hand {hand_wall:.2f} s, {hand_cpu:.2f} s of CPU; cluster {wall:.2f} "
                f"s, {workers:.2f} s of CPU in workers",
                flush=True,
            )
        job, items = EchoJob(RESULT_BYTES[stage]), list(range(ECHOES))
        wall, took = _timed(
            processes, lambda: list(cluster.map(job, items, stage, SilentProgress(), at))
        )
        forget(at)
        shares = [1000 * (t - wall * i) / ECHOES for t, i in zip(took, idle, strict=True)]
    print(
        f"{stage}, {len(samples)} images, {repetitions} repetitions: throughput of the cluster "
        f"{median(walls):.3f} of that by hand (from {min(walls):.3f} to {max(walls):.3f}); CPU "
        f"time by hand {median(cpus):.3f} of the workers' (from {min(cpus):.3f} to "
        f"{max(cpus):.3f}); an item takes {shares[0]:.2f} ms of CPU of the scheduler, "
        f"{shares[1] + shares[2]:.2f} of its worker, {shares[3]:.2f} of the command"
    )
    for seconds in (0.1, 1.0, 10.0):
        full = int(seconds / (max(shares[0], shares[3]) / 1000))
        print(f"  images of {seconds:g} s: one core is full with {full} slots")


def _timed(processes: Sequence[Any], work: Callable[[], object]) -> tuple[float, list[float]]:
    """Return wall and CPU seconds: of the scheduler, of each worker, of this process."""
    before = [*map(cpu, processes), time.process_time()]
    begun = time.perf_counter()
    work()
    wall = time.perf_counter() - begun
    after = [*map(cpu, processes), time.process_time()]
    return wall, [a - b for a, b in zip(after, before, strict=True)]


def main() -> None:
    """Compare both stages."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="of a variant: fp32.onnx and int8.onnx")
    parser.add_argument("--voc-root", type=Path)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--repetitions", type=int, default=5)
    arguments = parser.parse_args()
    samples = pick(read_split(find_voc_root(arguments.voc_root), "val"), arguments.images)
    for stage in STAGES:
        compare(stage, arguments.folder, samples, arguments.repetitions)


if __name__ == "__main__":
    main()
