"""What calibration and validation cost, as ratios to the plain forward passes of the same images.

``python -m deploy.bench`` prints a table and writes it to ``<out>/bench.json``. All timings of a
variant are taken in one run, in turn; peak memory is that of a process of its own for each row.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

import deploy
from calibration import find_voc_root, observe, read_split
from calibration.preprocess import Fit, preprocess
from calibration.voc import Sample, read_image
from deploy import display
from deploy.artifacts import DEFAULT_OUT, resolve_target
from deploy.environment import describe_environment
from deploy.errors import USER_ERRORS
from deploy.files import write_whole
from deploy.graph import Graph, read_graph
from deploy.progress import ConsoleProgress
from deploy.quantize.placement import place
from deploy.runtime import OnnxRunner, default_threads
from deploy.targets import DEFAULT_TARGET, PROFILES
from deploy.validate import Protocol, evaluate

FEW, MANY = 4, 32  # images of the two memory measurements


def workload(name: str, path: Path) -> Callable[[list[Sample]], float]:
    """Return a function that does ``forward``, ``validate`` or ``calibrate`` on images.

    It returns the seconds that the work took, with the session made beforehand; ``forward`` counts
    the network alone.
    """
    model = read_graph(path)
    graph = Graph(model)
    size = graph.input_size
    runner = None if name == "calibrate" else OnnxRunner(path)
    placement = place(graph, PROFILES[DEFAULT_TARGET]) if name == "calibrate" else None

    def work(samples: list[Sample]) -> float:
        inputs = (preprocess(read_image(s.image), Fit.CROP, size) for s in samples)
        start = time.perf_counter()
        if placement is not None:
            tensors = {name: graph.shapes[name] for name in placement.observed}
            observe(
                model,
                tensors,
                inputs,
                non_negative=placement.non_negative,
                threads=default_threads(),
            )
        elif name == "validate":
            assert runner is not None
            evaluate({"graph": runner}, samples, protocol=Protocol.CROP, size=size, baseline=None)
        else:
            assert runner is not None
            return _forward(runner, inputs)
        return time.perf_counter() - start

    return work


def _forward(runner: OnnxRunner, inputs: Any) -> float:
    """Return the seconds that the network alone takes."""
    seconds = 0.0
    for image in inputs:
        start = time.perf_counter()
        runner(image)
        seconds += time.perf_counter() - start
    return seconds


def measure(out: Path, variant: str, samples: list[Sample], rounds: int) -> list[dict[str, Any]]:
    """Return a row for each workload: its ratio to the forward passes, round by round."""
    target = resolve_target(variant, out)
    rows = []
    for precision, names in {"fp32": ["calibrate", "validate"], "int8": ["validate"]}.items():
        path = target.graph(precision)
        works = {name: workload(name, path) for name in ["forward", *names]}
        works["forward"](samples[:2])
        seconds: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(rounds):
            for name, work in works.items():
                seconds[name].append(work(samples))
        del works
        for name, values in seconds.items():
            pairs = zip(values, seconds["forward"], strict=True)
            rows.append(
                {
                    "variant": variant,
                    "graph": precision,
                    "work": name,
                    "ms_per_image": 1000 * statistics.median(values) / len(samples),
                    "ratio": statistics.median(value / base for value, base in pairs),
                    "peak_mib": {n: _peak_mib(path, name, n) for n in (FEW, MANY)},
                }
            )
    return rows


def _peak_mib(path: Path, name: str, count: int) -> float:
    """Return the peak resident memory of a process that does the work on ``count`` images."""
    command = [sys.executable, "-m", "deploy.bench", "--child", name, str(path), str(count)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(result.stdout)


def _child(name: str, path: str, count: str) -> None:
    samples = read_split(find_voc_root(), "val")[: int(count)]
    workload(name, Path(path))(samples)
    # not getrusage's figure: that one starts at the parent's memory
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    kibibytes = next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]
    print(int(kibibytes) / 1024)


def bench(
    variants: Annotated[list[str] | None, typer.Argument()] = None,
    images: int = 24,
    rounds: int = 5,
    out: Path = DEFAULT_OUT,
) -> None:
    """Measure calibration and validation against the plain forward passes of the same images."""
    samples = read_split(find_voc_root(), "val")[:images]
    progress = ConsoleProgress()
    rows = []
    for variant in variants or ["rf-lw-mbv2", "rf-lw50"]:
        if not resolve_target(variant, out).graph("int8").is_file():
            deploy.export(variant, out=out, progress=progress)
            deploy.quantize([variant], fp16=False, out=out, progress=progress)
        with progress.step(f"bench {variant}"):
            rows += measure(out, variant, samples, rounds)
    environment = describe_environment()
    write_whole(
        out / "bench.json", json.dumps({"environment": environment, "rows": rows}, indent=1)
    )
    display.benched(rows, environment, len(samples), rounds)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _child(*sys.argv[2:])
    else:
        try:
            typer.run(bench)
        except USER_ERRORS as error:
            sys.exit(f"{type(error).__name__}: {error}")
