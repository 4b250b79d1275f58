"""The stages whose cost is measured: the network alone, calibration, validation."""

import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from deploy.calibration import Fit, describe_data_set, find_voc_root, observe, preprocess
from deploy.calibration.preprocess import Float32Array
from deploy.calibration.voc import Sample, read_image
from deploy.graph.graph import Graph
from deploy.graph.metadata import read_metadata
from deploy.graph.reading import read_graph
from deploy.quantize.placement import place
from deploy.runtimes.onnxruntime import OnnxRunner
from deploy.store.environment import default_threads
from deploy.targets import DEFAULT_TARGET, PROFILES
from deploy.validate.evaluate import evaluate
from deploy.validate.protocol import Protocol

Work = Callable[[list[Sample]], float]


class Stage(StrEnum):
    """What is done to images."""

    FORWARD = "forward"  # the network alone, in onnxruntime
    CALIBRATE = "calibrate"  # one pass of observation
    VALIDATE = "validate"  # accuracy against the masks


def prepare_work(stage: Stage, path: Path) -> Work:
    """Return a function from images to the seconds that a stage takes on them.

    Sessions are made beforehand. ``calibrate`` and ``validate`` count the reading of images as
    well, ``forward`` the network alone.
    """
    if stage is Stage.CALIBRATE:
        return _calibrate(path)
    return _forward(path) if stage is Stage.FORWARD else _validate(path)


def read_fit(path: Path) -> Fit:
    """Return how the graph's metadata say that images become inputs, by default cropped."""
    return Fit(read_metadata(read_graph(path)).get("fit", Fit.CROP.value))


def input_reader(path: Path) -> Callable[[Sample], Float32Array]:
    """Return a function that reads an image as an input (1, 3, H, W) of a graph."""
    fit, size = read_fit(path), Graph(read_graph(path)).input_size
    return lambda sample: preprocess(read_image(sample.image), fit, size)


def _forward(path: Path) -> Work:
    runner, read = OnnxRunner(path), input_reader(path)

    def work(samples: list[Sample]) -> float:
        seconds = 0.0
        for image in map(read, samples):
            start = time.perf_counter()
            runner(image)
            seconds += time.perf_counter() - start
        return seconds

    return work


def _calibrate(path: Path) -> Work:
    model = read_graph(path)
    graph = Graph(model)
    placement = place(graph, PROFILES[DEFAULT_TARGET])
    tensors = {name: graph.shapes[name] for name in placement.observed}
    read = input_reader(path)

    def work(samples: list[Sample]) -> float:
        start = time.perf_counter()
        observe(
            model,
            tensors,
            map(read, samples),
            non_negative=placement.non_negative,
            threads=default_threads(),
        )
        return time.perf_counter() - start

    return work


def _validate(path: Path) -> Work:
    runner, size = OnnxRunner(path), Graph(read_graph(path)).input_size
    protocol = Protocol(read_fit(path).value)
    names = list(describe_data_set(find_voc_root()).classes)

    def work(samples: list[Sample]) -> float:
        start = time.perf_counter()
        evaluate(
            {"graph": runner},
            samples,
            protocol=protocol,
            size=size,
            baseline=None,
            class_names=names,
        )
        return time.perf_counter() - start

    return work
