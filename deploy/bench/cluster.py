"""What a cluster costs: two workers beside two processes started by hand, image by image.

    python -m deploy.bench.cluster artifacts/rf-lw-mbv2 --voc-root DIR --images 24

Both do the same images with one thread each, in turns within one run, with all graphs open. The
scheduler is a process of its own, so that what it takes an image can be told from what others take.
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
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from deploy.calibration import Fit, Sample, preprocess
from deploy.calibration.observe import Observer
from deploy.calibration.voc import find_voc_root, pick, read_image, read_split
from deploy.cluster.client import Cluster, forget, use_cluster
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

Timed = tuple[float, float, float]  # seconds; of the scheduler's and of this process's CPU
GRAPHS = ("fp32", "int8")
CLASSES = 21


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


def compare(stage: str, folder: Path, samples: list[Sample], repetitions: int) -> None:
    """Print what both take, in turns."""
    with tempfile.TemporaryDirectory() as name, by_hand(stage, folder, samples) as hand:
        at = Path(name)
        with own_cluster(at) as (cluster, (scheduler, *workers)):
            there = partial(STAGES[stage][1], cluster, folder, at=at)
            there(samples[:4])
            forget(at)
            walls, cpus, shares, here = [], [], [], []
            for _ in range(repetitions):
                begun = time.perf_counter()
                hand_cpu = hand()
                hand_wall = time.perf_counter() - begun
                before = [cpu(process) for process in (scheduler, *workers)]
                begun, own = time.perf_counter(), time.process_time()
                there(samples)
                wall, own = time.perf_counter() - begun, time.process_time() - own
                took = [cpu(p) - b for p, b in zip((scheduler, *workers), before, strict=True)]
                forget(at)
                walls.append(hand_wall / wall)
                cpus.append(hand_cpu / sum(took[1:]))
                shares.append(1000 * took[0] / len(samples))
                here.append(1000 * own / len(samples))
                print(
                    f"{stage}: by hand {hand_wall:.2f} s ({hand_cpu:.2f} s of CPU), cluster "
                    f"{wall:.2f} s ({sum(took[1:]):.2f} s in workers)"
                )
    median = statistics.median
    print(
        f"{stage}, {len(samples)} images, {repetitions} repetitions: throughput of the cluster "
        f"{median(walls):.3f} of that by hand (from {min(walls):.3f} to {max(walls):.3f}), CPU "
        f"time by hand {median(cpus):.3f} of the workers'; the scheduler takes "
        f"{median(shares):.2f} ms of CPU an image, the command {median(here):.2f} ms"
    )
    for seconds in (0.1, 1.0, 10.0):
        most = int(seconds / (max(median(shares), median(here)) / 1000))
        print(f"  images of {seconds:g} s: one core is full with {most} workers of one slot")


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
