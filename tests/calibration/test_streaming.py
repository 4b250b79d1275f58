"""Ranges from the stream equal those of a calibrator that keeps every activation of every image."""

from functools import cache

import numpy as np
import onnx
import onnxruntime
import pytest
from graphs import refine_model
from numpy.typing import NDArray
from onnx import helper

from deploy.calibration import Method, RangeConfig, TensorStatistics, choose_range, observe
from deploy.graph.graph import Graph
from deploy.quantize.placement import place
from deploy.targets import DEFAULT_TARGET, PROFILES

Float32Array = NDArray[np.float32]
ORDERS = {"given": [0, 1, 2, 3, 4], "reversed": [4, 3, 2, 1, 0], "shuffled": [2, 4, 0, 3, 1]}


def draw_images() -> list[Float32Array]:
    """Return images whose magnitudes differ, so that the order decides when histograms grow."""
    r = np.random.default_rng(0)
    scales = (1.0, 0.1, 20.0, 3.0, 0.5)
    return [(s * r.standard_normal((1, 3, 16, 16))).astype(np.float32) for s in scales]


@cache
def full_batch() -> dict[str, Float32Array]:
    """Return every observed activation of every image, (images, C, H, W), kept as they are."""
    model = refine_model()
    names = place(Graph(model), PROFILES[DEFAULT_TARGET]).observed
    inner = [name for name in names if name != "image"]
    del model.graph.output[:]
    model.graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in inner
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    images = draw_images()
    runs = [session.run(inner, {"image": image}) for image in images]
    by_tensor = zip(*runs, strict=True)
    activations = {name: np.concatenate(v) for name, v in zip(inner, by_tensor, strict=True)}
    return {"image": np.concatenate(images), **activations}


@cache
def stream(order: str, threads: int) -> dict[str, TensorStatistics]:
    model = refine_model()
    graph = Graph(model)
    placement = place(graph, PROFILES[DEFAULT_TARGET])
    images = draw_images()
    return observe(
        model,
        {name: graph.shapes[name] for name in placement.observed},
        (images[i] for i in ORDERS[order]),
        non_negative=placement.non_negative,
        threads=threads,
    )


def whole(values: Float32Array) -> TensorStatistics:
    """Return the statistics of one batch that holds everything."""
    statistics = TensorStatistics()
    statistics.update(values.min(axis=(0, 2, 3)), values.max(axis=(0, 2, 3)), values)
    return statistics


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("method", list(Method))
def test_streamed_ranges_equal_the_full_batchs_within_a_bin(
    method: Method, order: str, threads: int
) -> None:
    config = RangeConfig(method=method, percentile=99.5)
    streamed = stream(order, threads)
    assert streamed.keys() == full_batch().keys()
    for name, values in full_batch().items():
        found, expected = choose_range(streamed[name], config), choose_range(whole(values), config)
        assert found == pytest.approx(expected, abs=streamed[name].bin_width), name


@pytest.mark.parametrize("order", ORDERS)
def test_streamed_minmax_and_percentile_equal_numpys_on_the_full_batch(order: str) -> None:
    percentile = RangeConfig(method=Method.PERCENTILE, percentile=99.5)
    for name, values in full_batch().items():
        statistics = stream(order, 1)[name]
        minmax = min(values.min(), 0), max(values.max(), 0)
        assert choose_range(statistics, RangeConfig()) == pytest.approx(minmax, rel=1e-5)
        quantiles = np.quantile(values, [0.005, 0.995], method="inverted_cdf")
        expected = min(quantiles[0], 0), max(quantiles[1], 0)
        found = choose_range(statistics, percentile)
        assert found == pytest.approx(expected, abs=statistics.bin_width), name


def test_statistics_are_the_same_bytes_in_any_order_and_with_any_threads() -> None:
    expected = {name: s.to_json() for name, s in stream("given", 1).items()}
    for order in ORDERS:
        for threads in (1, 2, 4):
            assert {n: s.to_json() for n, s in stream(order, threads).items()} == expected
