"""All measurements of one variant, in turn, so that they share the machine's good and bad times."""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from deploy.bench.apart import quantize_apart, work_apart
from deploy.bench.quantizers import QUANTIZERS, Quantizer
from deploy.bench.work import Stage, Work, input_reader, prepare_work, read_fit
from deploy.calibration import Sample, find_voc_root, read_split
from deploy.calibration.preprocess import Float32Array
from deploy.errors import DeployError
from deploy.graph.graph import Graph
from deploy.graph.metadata import read_metadata
from deploy.graph.reading import read_graph
from deploy.inspect.latency import time_in_turn
from deploy.progress import Progress
from deploy.runtimes.onnxruntime import OnnxRunner
from deploy.runtimes.openvino import OpenVinoRunner
from deploy.runtimes.runner import Runner
from deploy.validate.evaluate import evaluate
from deploy.validate.evaluation_set import EvaluationSet
from deploy.validate.protocol import Protocol

FEW, MANY = 4, 32  # images of the two memory measurements
PASSES = 5  # forward passes before and after each quantization
LATENCY_PASSES = 20  # of each graph, in a round
KEPT_SHARE = 0.6  # of the free memory that activations kept by a calibrator may fill
KEPT_OVERHEAD = 1.2  # of such a calibrator, over the activations alone (measured)
FLOAT = "fp32"

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How much is measured."""

    images: int  # that calibrate, and on which stages are timed
    kept_images: int  # likewise of quantizers that keep every activation in memory
    limit: int  # images of val on which accuracy is measured
    rounds: int


def measure_stages(variant: str, folder: Path, settings: Settings, progress: Progress) -> list[Row]:
    """Return time and memory of each stage, as ratios to the forward passes, round by round."""
    samples = read_split(find_voc_root(), "val")[: settings.images]
    rows = []
    stages = {FLOAT: [*Stage], "deploy-plain": [Stage.FORWARD, Stage.VALIDATE]}
    for graph, names in stages.items():
        path = folder / f"{graph}.onnx"
        with progress.step(f"stages {variant} {graph}"):
            works = {name: prepare_work(name, path) for name in names}
            works[Stage.FORWARD](samples[:2])
            seconds = in_turn(works, samples, settings.rounds)
            del works
            for name, values in seconds.items():
                bases = seconds[Stage.FORWARD]
                rows.append(
                    {
                        "variant": variant,
                        "graph": graph,
                        "work": name.value,
                        "ms_per_image": 1000 * statistics.median(values) / len(samples),
                        "ratio": _ratio(values, bases),
                        "peak_mib": {n: work_apart(name, path, n)["peak_mib"] for n in (FEW, MANY)},
                    }
                )
    return rows


def in_turn(
    works: Mapping[Stage, Work], samples: list[Sample], rounds: int
) -> dict[Stage, list[float]]:
    """Return the seconds of each work in each round."""
    seconds: dict[Stage, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            seconds[name].append(work(samples))
    return seconds


def measure_quantizers(
    variant: str,
    folder: Path,
    settings: Settings,
    progress: Progress,
    quantizers: Mapping[str, Quantizer] = QUANTIZERS,
) -> list[Row]:
    """Return what every quantizer costs, and the accuracy and latency of what it gives.

    The first row is the FP32 graph's. One whose package is missing, or that failed, says so under
    ``note`` and has no figures.
    """
    fp32 = folder / f"{FLOAT}.onnx"
    rows = {name: {"quantizer": name, "label": q.label} for name, q in quantizers.items()}
    costs = _measure_costs(variant, folder, settings, progress, quantizers)
    graphs = {FLOAT: fp32}
    for name, cost in costs.items():
        rows[name] |= cost
        if "note" not in cost:
            graphs[name] = folder / f"{name}{quantizers[name].suffix}"
    scores = _measure_accuracy(variant, graphs, settings, progress)
    with progress.step(f"latency {variant}"):
        image = _first_input(fp32)
        times = measure_latency(graphs, image, settings.rounds * LATENCY_PASSES)
    float_row = {"quantizer": FLOAT, "label": "FP32"}
    return [
        {"variant": variant, **row, **scores.get(name, {}), **times.get(name, {})}
        for name, row in {FLOAT: float_row, **rows}.items()
    ]


def _measure_costs(
    variant: str,
    folder: Path,
    settings: Settings,
    progress: Progress,
    quantizers: Mapping[str, Quantizer],
) -> dict[str, Row]:
    """Return seconds, their ratio to forward passes before and after, and peak memory."""
    fp32 = folder / f"{FLOAT}.onnx"
    runner, image = OnnxRunner(fp32), _first_input(fp32)
    kept = min(settings.kept_images, settings.images, kept_images(fp32))
    figures: dict[str, list[Row]] = {name: [] for name in quantizers}
    notes: dict[str, str] = {}
    for turn in range(settings.rounds):
        for name, quantizer in quantizers.items():
            if quantizer.missing:
                missing = " and ".join(quantizer.missing)
                notes[name] = f"not measured, for want of {missing}: pip install '.[bench]'"
            if name in notes:
                continue
            count = kept if quantizer.keeps_all else settings.images
            with progress.step(f"{quantizer.label}, round {turn + 1}"):
                before = _forward_seconds(runner, image)
                try:
                    int8 = folder / f"{name}{quantizer.suffix}"
                    found = quantize_apart(name, fp32, int8, count)
                except DeployError as error:
                    notes[name] = str(error)
                    continue
                forward = statistics.median([*before, *_forward_seconds(runner, image)])
            ratio = found["seconds"] / (count * forward)
            figures[name].append({**found, "images": count, "ratio": ratio})
    return {
        name: {"note": notes[name]} if name in notes else _median_row(rounds)
        for name, rounds in figures.items()
    }


def _first_input(fp32: Path) -> Float32Array:
    """Return the input (1, 3, H, W) on which networks are timed."""
    return input_reader(fp32)(read_split(find_voc_root(), "val")[0])


def kept_images(fp32: Path) -> int:
    """Return how many images' activations, all of them in float32, the free memory holds."""
    shapes = Graph(read_graph(fp32)).shapes
    made = [name for node in read_graph(fp32).graph.node for name in node.output]
    elements = sum(math.prod(shapes.get(name, ())) for name in made)
    free = _available_bytes()
    return max(1, int(KEPT_SHARE * free / (4 * elements * KEPT_OVERHEAD))) if free else 1


def _available_bytes() -> int:
    """Return the memory that Linux says can still be had; 0 where it does not tell."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="utf-8")
    except OSError:
        return 0
    lines = [line for line in text.splitlines() if line.startswith("MemAvailable:")]
    return 1024 * int(lines[0].split()[1]) if lines else 0


def _forward_seconds(runner: Runner, image: Float32Array) -> list[float]:
    runner(image)  # other processes have had the caches
    return [_seconds(lambda: runner(image)) for _ in range(PASSES)]


def _seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _median_row(rounds: list[Row]) -> Row:
    """Return the median of each figure."""
    return {
        key: value
        if value is None or key == "images"
        else statistics.median(r[key] for r in rounds)
        for key, value in rounds[0].items()
    }


def _measure_accuracy(
    variant: str, graphs: Mapping[str, Path], settings: Settings, progress: Progress
) -> dict[str, Row]:
    """Return each graph's accuracy and its fidelity to FP32, in the runtime that it is for."""
    fp32 = graphs[FLOAT]
    metadata = read_metadata(read_graph(fp32))
    data = EvaluationSet.find(None, "val", settings.limit)
    results = evaluate(
        {
            name: OnnxRunner(path) if path.suffix == ".onnx" else OpenVinoRunner(path)
            for name, path in graphs.items()
        },
        progress.track(data.samples, f"accuracy {variant}"),
        protocol=Protocol(read_fit(fp32).value),
        size=Graph(read_graph(fp32)).input_size,
        baseline=FLOAT,
        class_names=list(data.data.classes),
    )
    keys = ["agreement", "sqnr_db"]
    if metadata.get("weights") != "random":  # those have no accuracy
        keys += ["miou", "miou_drop"]
    sizes = {
        name: sum(p.stat().st_size for p in path.parent.glob(f"{path.stem}.*"))
        for name, path in graphs.items()
    }
    return {
        name: {key: result.to_json()[key] for key in keys} | {"size_bytes": sizes[name]}
        for name, result in results.items()
    }


def measure_latency(
    graphs: Mapping[str, Path], image: Float32Array, passes: int, base: str = FLOAT
) -> dict[str, Row]:
    """Return the median time of each graph in both runtimes, all in turn, batch 1.

    Ratios are to the graph ``base`` in onnxruntime, pass by pass. A runtime that is not there, or
    cannot load a graph, gives none.
    """
    runners: dict[tuple[str, str], Runner] = {}
    for name, path in graphs.items():
        if path.suffix == ".onnx":
            runners[name, "onnxruntime"] = OnnxRunner(path)
        try:
            runners[name, "openvino"] = OpenVinoRunner(path, exact=False)  # as it is deployed
        except DeployError:
            continue
    seconds = time_in_turn({key: partial(run, image) for key, run in runners.items()}, passes)
    bases = seconds[base, "onnxruntime"]
    rows: dict[str, Row] = {name: {} for name in graphs}
    for (name, runtime), values in seconds.items():
        rows[name][f"{runtime}_ms"] = 1000 * statistics.median(values)
        rows[name][f"{runtime}_ratio"] = _ratio(values, bases)
    return rows


def _ratio(values: list[float], bases: list[float]) -> float:
    """Return the median over the rounds of one time over another."""
    return statistics.median(v / base for v, base in zip(values, bases, strict=True))
