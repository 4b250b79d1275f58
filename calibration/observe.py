"""One pass over the images: the statistics of chosen tensors, in constant memory.

Reductions run inside the graph, each as soon as its tensor is there, so that no whole activation
leaves the runtime or outlives its use: the maximum as a GlobalMaxPool and samples as a strided 1x1
MaxPool, both of which onnxruntime computes in the blocked layout that its convolutions already use,
as it does the average that finds a NaN; the minimum, where one is needed, in the plain layout.
"""

import math
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from deploy.calibration.errors import CalibrationError
from deploy.calibration.onnx_session import open_model, session_options
from deploy.calibration.preprocess import Float32Array
from deploy.calibration.statistics import TensorStatistics

if TYPE_CHECKING:
    import onnxruntime

SAMPLES = 8192  # of a tensor and an image, at most, for the histogram
MARK = "\u241ftap\u241f"  # in the names of what is added: in no exporter's
STREAMS = 2  # images under way at a time, at most: each holds the activations of one inference


def observe(
    model: onnx.ModelProto,
    tensors: Mapping[str, tuple[int, ...]],
    images: Iterable[Float32Array],
    *,
    non_negative: frozenset[str] = frozenset(),
    threads: int = 1,
) -> dict[str, TensorStatistics]:
    """Run ``model`` on every image and return the statistics of ``tensors``.

    Two images are under way at a time if there are threads for both: reading one, its pass through
    the network and its histograms overlap with another's. The result is the same for any number of
    threads.

    Args:
        model: a graph with one input; it is not changed.
        tensors: the shape (1, C, H, W) of each tensor to observe, by name.
        images: inputs float32 (1, 3, H, W), taken one at a time and then dropped; they may be taken
            in other threads than the caller's, never in two at once.
        non_negative: tensors known to have no value below zero: their minimum is taken as zero.
        threads: at least 1.

    Raises:
        CalibrationError: there are no images, or a tensor has a NaN or infinite value.
    """
    streams = min(threads, STREAMS)
    observer = Observer(
        model, tensors, non_negative=non_negative, threads=threads_a_stream(threads)
    )
    source = _Source(images)
    with ThreadPoolExecutor(streams) as pool:
        try:
            running = [pool.submit(_observe_stream, observer, source) for _ in range(streams)]
            parts = [stream.result() for stream in running]
        finally:
            source.close()  # also on an interrupt: the pool waits for its streams
    if source.error:
        raise source.error
    if not source.count:
        raise CalibrationError("no images to calibrate with: give at least one")
    statistics = parts[0]
    for part in parts[1:]:
        for name, statistic in statistics.items():
            statistic.merge(part[name])
    return statistics


def threads_a_stream(threads: int) -> int:
    """Return how many of a process's threads one image is observed with."""
    return threads // min(threads, STREAMS)


class Observer:
    """A graph whose tensors are observed, image after image.

    Args:
        model, tensors, non_negative: as of :func:`observe`.
        threads: of one pass.

    Raises:
        CalibrationError: onnxruntime cannot load the graph.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        tensors: Mapping[str, tuple[int, ...]],
        *,
        non_negative: frozenset[str] = frozenset(),
        threads: int = 1,
    ) -> None:
        witnesses = _nan_witnesses(model.graph)
        self.taps = {name: _taps_of(name in non_negative, name in witnesses) for name in tensors}
        self.channels = {name: shape[1] for name, shape in tensors.items()}
        self.session = _session(_tapped(model, tensors, self.taps), threads)
        self.input_name = self.session.get_inputs()[0].name
        self.outputs = [_tap(name, "statistics") for name in tensors]

    def start(self) -> dict[str, TensorStatistics]:
        """Return statistics of no image yet."""
        return {name: TensorStatistics() for name in self.taps}

    def add(
        self, number: int, image: Float32Array, statistics: Mapping[str, TensorStatistics]
    ) -> None:
        """Add what an image (1, 3, H, W) shows; errors call it by its number.

        Raises:
            CalibrationError: a tensor has a NaN or infinite value.
        """
        try:
            rows = self.session.run(self.outputs, {self.input_name: image})
        except Exception as error:  # onnxruntime's exceptions share no public base class
            raise _cannot("run", error) from None
        for (name, statistic), row in zip(statistics.items(), rows, strict=True):
            try:
                _update(statistic, self.taps[name], row[0], self.channels[name])
            except CalibrationError as error:
                raise CalibrationError(
                    f"tensor {name} on image {number}: {error}: the graph cannot be calibrated"
                ) from None


class _Source:
    """Hands out the images, numbered from 1, to several streams, until one of them fails."""

    def __init__(self, images: Iterable[Float32Array]) -> None:
        self.images = iter(images)
        self.lock = threading.RLock()
        self.count = 0
        self.error: BaseException | None = None
        self.error_at = math.inf
        self.closed = False

    def take(self) -> tuple[int, Float32Array | None]:
        """Return the next image and its number; None after the last one."""
        with self.lock:
            number = self.count + 1
            try:
                image = None if self.closed else next(self.images, None)
            except BaseException as error:
                self.fail(number, error)
                return number, None
            self.count += image is not None
            return number, image

    def fail(self, number: int, error: BaseException) -> None:
        """Keep the error of the first image that has one: streams do not end in order."""
        with self.lock:
            if number < self.error_at:
                self.error, self.error_at = error, number
            self.closed = True

    def close(self) -> None:
        """Hand out no more."""
        self.closed = True


def _observe_stream(observer: Observer, source: _Source) -> dict[str, TensorStatistics]:
    """Run images of ``source`` until there are no more; return the statistics of these."""
    statistics = observer.start()
    while True:
        number, image = source.take()
        if image is None:
            return statistics
        try:
            observer.add(number, image, statistics)
        except BaseException as error:
            source.fail(number, error)
            return statistics


def _update(statistic: TensorStatistics, taps: list[str], row: Float32Array, channels: int) -> None:
    """Add the taps of one tensor on one image: ``channels`` values each, then the samples."""
    per_channel = row[: channels * (len(taps) - 1)].reshape(-1, channels)
    values = dict(zip(taps[:-1], per_channel, strict=True))
    # GlobalMaxPool of a channel that is NaN everywhere gives the lowest number
    low = values.get("min", np.zeros(channels, dtype=np.float32))
    high = np.maximum(values["max"], low)
    if np.isnan(values.get("mean", 0.0)).any():
        low = high = np.full_like(high, np.nan)
    statistic.update(low, high, row[per_channel.size :].reshape(1, channels, -1))


def _tap(tensor: str, statistic: str) -> str:
    return f"{tensor}{MARK}{statistic}"


def _taps_of(non_negative: bool, witness: bool) -> list[str]:
    """Return what is taken of a tensor, in the order in which its row holds it."""
    wanted = {"max": True, "min": not non_negative, "mean": witness, "samples": True}
    return [tap for tap, is_wanted in wanted.items() if is_wanted]


def _tapped(
    model: onnx.ModelProto, tensors: Mapping[str, tuple[int, ...]], taps: Mapping[str, list[str]]
) -> onnx.ModelProto:
    """Return ``model`` with one output (1, …) for each of ``tensors``: its taps in a row.

    onnxruntime orders nodes by a depth-first search from the last output to the first: in reverse,
    the outputs make it reduce each tensor as soon as it is there, and drop it before the next one.
    That holds where the outputs come from nodes that no optimization replaces, such as Concat.
    """
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    graph = tapped.graph
    axes, options = _reduce_height_and_width(tapped)
    del graph.output[:]
    for name, shape in reversed(list(tensors.items())):
        nodes = {
            "max": helper.make_node("GlobalMaxPool", [name], [_tap(name, "max")]),
            "min": helper.make_node("ReduceMin", [name, *axes], [_tap(name, "min")], **options),
            "mean": helper.make_node("GlobalAveragePool", [name], [_tap(name, "mean")]),
            "samples": _sample(graph, name, shape, blocked="min" not in taps[name]),
        }
        rows = [_tap(name, f"{tap}/row") for tap in taps[name]]
        for tap, row in zip(taps[name], rows, strict=True):
            flat = helper.make_node("Flatten", nodes[tap].output, [row], axis=0)
            graph.node.extend([nodes[tap], flat])
        output = _tap(name, "statistics")
        graph.node.append(helper.make_node("Concat", rows, [output], axis=1))
        graph.output.append(helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))
    return tapped


def _sample(
    graph: onnx.GraphProto, name: str, shape: tuple[int, ...], *, blocked: bool
) -> onnx.NodeProto:
    """Return the node that takes every stride-th row and column of a tensor.

    A strided pooling reads the blocked layout; where the plain one is there for the minimum, a
    slice of that costs less.
    """
    stride = math.ceil(math.sqrt(max(1.0, math.prod(shape) / SAMPLES)))
    strides = [min(stride, shape[2]), min(stride, shape[3])]
    output = _tap(name, "samples")
    if blocked:
        return helper.make_node("MaxPool", [name], [output], kernel_shape=[1, 1], strides=strides)
    arguments = {"starts": [0, 0], "ends": shape[2:], "axes": [2, 3], "steps": strides}
    for argument, value in arguments.items():
        array = np.array(value, dtype=np.int64)
        graph.initializer.append(numpy_helper.from_array(array, _tap(name, argument)))
    return helper.make_node("Slice", [name, *(_tap(name, a) for a in arguments)], [output])


def _reduce_height_and_width(model: onnx.ModelProto) -> tuple[list[str], dict[str, Any]]:
    """Return what a reduction takes beyond its tensor: inputs since opset 18, else attributes."""
    version = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    if version < 18:
        return [], {"axes": [2, 3], "keepdims": 0}
    model.graph.initializer.append(numpy_helper.from_array(np.array([2, 3]), _tap("", "axes")))
    return [_tap("", "axes")], {"keepdims": 0}


def _nan_witnesses(graph: onnx.GraphProto) -> set[str]:
    """Return the tensors whose average shows every NaN of the network.

    Maxima and minima lose a NaN among other values, an average does not. All operators but pooling
    hand a NaN on, so that it shows before the next pooling or at the output.
    """
    pooled = {name for node in graph.node if "Pool" in node.op_type for name in node.input}
    return pooled | {output.name for output in graph.output}


def _session(model: onnx.ModelProto, threads: int) -> "onnxruntime.InferenceSession":
    options = session_options(threads)
    options.enable_mem_pattern = False  # one block for all of a pass: more than its parts take
    try:
        return open_model(model, options)
    except Exception as error:  # onnxruntime's exceptions share no public base class
        raise _cannot("load", error) from None


def _cannot(verb: str, error: Exception) -> CalibrationError:
    reason = " ".join(str(error).split())[:200]
    return CalibrationError(f"onnxruntime cannot {verb} the graph: {reason}")
