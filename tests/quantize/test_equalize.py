"""Equalization changes the channels' ranges and nothing else."""

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from graphs import make_model, refine_model, run
from onnx import helper

from deploy.calibration import observe
from deploy.calibration.statistics import TensorStatistics
from deploy.graph.graph import Graph, with_node_names
from deploy.quantize.equalize import equalize
from deploy.quantize.placement import place
from deploy.targets import PROFILES


def images(count: int = 4) -> list[np.ndarray]:
    r = np.random.default_rng(1)
    return [r.standard_normal((1, 3, 16, 16)).astype(np.float32) for _ in range(count)]


def uneven(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give the channels of the second convolution very different ranges."""
    graph = Graph(model)
    for tensor in model.graph.initializer:
        if tensor.name in ("w2", "b2"):
            value = graph.constants[tensor.name].copy()
            value *= np.geomspace(0.01, 1, len(value)).reshape(-1, *[1] * (value.ndim - 1))
            tensor.CopyFrom(onnx.numpy_helper.from_array(value.astype(np.float32), tensor.name))
    return with_node_names(model)


def observed(graph: Graph) -> Mapping[str, TensorStatistics]:
    placement = place(graph, PROFILES["ort"])
    shapes = {name: graph.shapes[name] for name in placement.observed}
    return observe(graph.model, shapes, images(), non_negative=placement.non_negative)


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_computes_the_same_on_the_calibration_images(strength: float) -> None:
    graph = Graph(uneven(refine_model()))
    equalized = equalize(graph, observed(graph), strength)
    for image in images():
        expected = run(graph.model, image)
        np.testing.assert_allclose(run(equalized.model, image), expected, rtol=1e-4, atol=1e-5)


def test_brings_the_ranges_of_channels_together() -> None:
    graph = Graph(uneven(refine_model()))
    before = observed(graph)["k2"]
    after = observed(equalize(graph, observed(graph), 1.0))["k2"]
    live = before.channel_maximum > 0
    assert before.maximum > 20 * before.channel_maximum[live].min()
    np.testing.assert_allclose(after.channel_maximum[live], after.maximum, rtol=1e-4)
    assert after.maximum == pytest.approx(before.maximum, rel=1e-5)


def test_does_not_touch_input_and_output() -> None:
    graph = Graph(uneven(refine_model()))
    equalized = equalize(graph, observed(graph), 1.0)
    after = observed(equalized)
    for name in ("image", "logits"):
        before = observed(graph)[name]
        np.testing.assert_allclose(after[name].channel_maximum, before.channel_maximum, rtol=1e-4)


def test_strength_zero_changes_no_value() -> None:
    graph = Graph(uneven(refine_model()))
    equalized = equalize(graph, observed(graph), 0.0)
    image = images(1)[0]
    np.testing.assert_array_equal(run(equalized.model, image), run(graph.model, image))


@pytest.mark.parametrize(
    ("op_type", "inputs"), [("Sigmoid", ["c1"]), ("Clip", ["c1", "low", "high"])]
)
def test_a_nonlinear_operator_keeps_its_channels(op_type: str, inputs: list[str]) -> None:
    r = np.random.default_rng(0)
    constants = {
        "w1": (r.standard_normal((4, 3, 1, 1)) * np.geomspace(0.01, 1, 4)[:, None, None, None]),
        "w2": r.standard_normal((2, 4, 1, 1)),
        "low": np.array(-1),
        "high": np.array(1),
    }
    used = {name: v.astype(np.float32) for name, v in constants.items()}
    if op_type == "Sigmoid":
        del used["low"], used["high"]
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["c1"], name="one"),
        helper.make_node(op_type, inputs, ["s"], name="bend"),
        helper.make_node("Conv", ["s", "w2"], ["logits"], name="two"),
    ]
    graph = Graph(make_model(nodes, used))
    statistics = TensorStatistics()
    low, high = np.full(4, -1, np.float32), np.geomspace(0.01, 1, 4).astype(np.float32)
    statistics.update(low, high, np.zeros((1, 4, 1, 1), np.float32))
    equalized = equalize(graph, {"c1": statistics, "s": statistics}, 1.0)
    image = images(1)[0]
    np.testing.assert_array_equal(run(equalized.model, image), run(graph.model, image))
