"""The levers on weights: what they gain is measured on the convolution's own result."""

import sys
from types import ModuleType

import numpy as np
import pytest
from graphs import refine_model, run

from deploy.calibration import observe
from deploy.graph.graph import Graph, with_node_names
from deploy.quantize import rounding
from deploy.quantize.int8 import nearest_weights
from deploy.quantize.moments import ConvGeometry, collect_moments
from deploy.quantize.placement import place
from deploy.quantize.recipe import Rounding
from deploy.quantize.weights import ImprovedWeights, improve_weights, with_biases
from deploy.targets import PROFILES

ROUNDERS = {
    "second-order": rounding.round_second_order,
    "learned": rounding.round_learned,
}


def moments_module() -> ModuleType:
    """Return the module: its path leads through the function ``deploy.quantize``."""
    return sys.modules["deploy.quantize.moments"]


def images(count: int = 6) -> list[np.ndarray]:
    r = np.random.default_rng(1)
    return [0.5 + r.standard_normal((1, 3, 16, 16)).astype(np.float32) for _ in range(count)]


def correlated(groups: int = 3, size: int = 9) -> np.ndarray:
    """Return second moments of inputs that vary together, as neighbouring pixels do."""
    r = np.random.default_rng(2)
    common = r.standard_normal((groups, 1, 400))
    x = common + 0.3 * r.standard_normal((groups, size, 400))
    return x @ x.transpose(0, 2, 1) / 400


@pytest.mark.parametrize("name", ROUNDERS)
def test_rounding_beats_the_nearest_where_inputs_vary_together(name: str) -> None:
    second = correlated()
    weight = np.random.default_rng(3).uniform(-100, 100, (3, 5, 9))
    nearest = np.rint(weight)
    q = ROUNDERS[name](weight, second, 127)
    assert rounding.error(weight, q, second) < 0.5 * rounding.error(weight, nearest, second)


@pytest.mark.parametrize("name", ROUNDERS)
def test_rounding_gives_integers_within_the_limit(name: str) -> None:
    weight = np.random.default_rng(3).uniform(-64, 64, (1, 4, 9))
    q = ROUNDERS[name](weight, correlated(1), 64)
    assert q.shape == weight.shape
    np.testing.assert_array_equal(q, np.rint(q))
    assert np.abs(q).max() <= 64


@pytest.mark.parametrize("name", ROUNDERS)
def test_integers_stay_as_they_are(name: str) -> None:
    weight = np.random.default_rng(3).integers(-100, 100, (2, 4, 9)).astype(np.float64)
    np.testing.assert_array_equal(ROUNDERS[name](weight, correlated(2), 127), weight)


@pytest.mark.parametrize("name", ROUNDERS)
def test_a_covariance_with_too_few_digits_is_no_obstacle(name: str) -> None:
    ones = np.ones((1, 9, 9))
    lost = 0.05 * np.eye(9)  # its eigenvalues: one of 8.95, eight of -0.05
    weight = np.random.default_rng(3).uniform(-100, 100, (1, 5, 9))
    q = ROUNDERS[name](weight, ones - lost, 127)
    nearest = np.rint(weight)
    assert rounding.error(weight, q, ones) < 0.5 * rounding.error(weight, nearest, ones)


@pytest.mark.parametrize("name", ROUNDERS)
def test_inputs_that_are_always_zero_are_no_obstacle(name: str) -> None:
    second = correlated(2)
    second[0] = 0
    second[1, 4], second[1, :, 4] = 0, 0
    weight = np.random.default_rng(3).uniform(-100, 100, (2, 4, 9))
    q = ROUNDERS[name](weight, second, 127)
    assert np.isfinite(q).all()
    assert np.abs(q - weight).max() < 10


def test_second_order_rounding_does_not_depend_on_the_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    second, weight = correlated(2, 40), np.random.default_rng(3).uniform(-90, 90, (2, 3, 40))
    whole = rounding.round_second_order(weight, second, 127)
    monkeypatch.setattr(rounding, "BLOCK", 7)
    np.testing.assert_array_equal(rounding.round_second_order(weight, second, 127), whole)


def test_moments_are_those_of_the_patches_that_the_convolution_multiplies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """E[W x] from the moments is the mean of the convolution's result, padding included."""
    graph = Graph(with_node_names(refine_model()))
    node = next(n for n in graph.model.graph.node if n.name == "depthwise")
    monkeypatch.setattr(moments_module(), "POSITIONS", 10**6)  # every position
    (found,) = collect_moments(graph, [node], images(), largest=100)
    weight = graph.constants["w3"].reshape(8, 1, 9).astype(np.float64)
    mean = (weight @ found["depthwise"].mean[:, :, None]).ravel()
    results = [outputs(graph, "c3", image) for image in images()]
    np.testing.assert_allclose(mean, np.mean(results, axis=(0, 1, 3, 4)), rtol=1e-4, atol=1e-6)
    second = np.einsum("grk,gkl,grl->gr", weight, found["depthwise"].second, weight).ravel()
    np.testing.assert_allclose(second, np.mean(np.square(results), axis=(0, 1, 3, 4)), rtol=1e-4)


def outputs(graph: Graph, name: str, image: np.ndarray) -> np.ndarray:
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    del model.graph.output[:]
    value = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
    model.graph.output.append(value)
    return run(model, image)


@pytest.mark.parametrize(("stride", "dilation", "pad"), [(1, 1, 1), (2, 1, 0), (1, 2, 2)])
def test_patches_are_laid_out_as_the_weight(stride: int, dilation: int, pad: int) -> None:
    torch = pytest.importorskip("torch")
    geometry = ConvGeometry(
        kernel=(3, 3), strides=(stride,) * 2, dilations=(dilation,) * 2, pads=(pad,) * 4, groups=2
    )
    image = np.random.default_rng(0).standard_normal((4, 11, 9)).astype(np.float32)
    weight = np.random.default_rng(1).standard_normal((6, 2, 3, 3)).astype(np.float32)
    expected = torch.nn.functional.conv2d(
        torch.from_numpy(image)[None], torch.from_numpy(weight), None, stride, pad, dilation, 2
    )[0]
    chosen = geometry.draw(image.shape, np.random.default_rng(0), 10**6)
    patches = geometry.patches(image, chosen)
    got = weight.reshape(2, 3, -1) @ patches  # (G, R, P), positions in a random order
    np.testing.assert_allclose(
        np.sort(got.reshape(6, -1)), np.sort(expected.reshape(6, -1).numpy()), atol=1e-5
    )


def improve(
    method: Rounding, *, correct: bool, largest: int = 100
) -> tuple[Graph, ImprovedWeights]:
    graph = Graph(with_node_names(refine_model()))
    profile = PROFILES["ort"]
    placement = place(graph, profile)
    shapes = {name: graph.shapes[name] for name in placement.observed}
    statistics = observe(graph.model, shapes, images(), non_negative=placement.non_negative)
    ranges = {name: (min(s.minimum, 0), max(s.maximum, 0)) for name, s in statistics.items()}
    weights = nearest_weights(graph, placement, ranges, profile)
    return graph, improve_weights(
        graph, weights, images(), method=method, correct_biases=correct, weight_max=127,
        largest=largest,
    )  # fmt: skip


def with_weights(graph: Graph, improved: ImprovedWeights) -> Graph:
    """Return the float graph with the quantized weights and their biases in place of its own."""
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(with_biases(graph, improved.biases).model)
    for node in model.graph.node:
        if node.name in improved.weights:
            q, scale = improved.weights[node.name]
            value = (q * np.reshape(scale, (-1, 1, 1, 1))).astype(np.float32)
            name = f"{node.name}.replaced"
            model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
            node.input[1] = name
    return Graph(model)


def test_bias_correction_restores_the_mean_of_every_channel() -> None:
    graph, improved = improve(Rounding.NEAREST, correct=True)
    _, uncorrected = improve(Rounding.NEAREST, correct=False)

    def shift(found: ImprovedWeights) -> float:
        """The distance of the means of the first convolution's channels."""
        quantized = with_weights(graph, found)
        means = [
            np.mean([outputs(g, "c1", image) for image in images()], axis=(0, 1, 3, 4))
            for g in (graph, quantized)
        ]
        return float(np.abs(means[0] - means[1]).max())

    assert shift(improved) < 0.2 * shift(uncorrected)


def test_a_convolution_without_bias_gets_one() -> None:
    graph, improved = improve(Rounding.NEAREST, correct=True)
    corrected = with_biases(graph, improved.biases)
    inputs = {n.name: list(n.input) for n in corrected.model.graph.node}
    assert len(inputs["depthwise"]) == 3
    assert len(next(n for n in graph.model.graph.node if n.name == "depthwise").input) == 2


def test_each_method_gains_and_no_node_loses() -> None:
    _, second_order = improve(Rounding.SECOND_ORDER, correct=True)
    _, adaround = improve(Rounding.ADAROUND, correct=True)
    for name, gain in second_order.gain_db.items():
        assert 0 <= gain <= adaround.gain_db[name] + 1e-9
    assert max(second_order.gain_db.values()) > 1


def test_large_convolutions_are_rounded_to_the_nearest() -> None:
    _, improved = improve(Rounding.SECOND_ORDER, correct=True, largest=9)
    gained = {name for name, gain in improved.gain_db.items() if gain > 0}
    assert gained <= {"conv2", "depthwise"}  # 8 and 9 values; the others have more
    _, plain = improve(Rounding.NEAREST, correct=False)
    for name in ("conv1", "classifier"):
        np.testing.assert_array_equal(improved.weights[name].q, plain.weights[name].q)


def test_moments_do_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    _, whole = improve(Rounding.SECOND_ORDER, correct=True)
    monkeypatch.setattr(moments_module(), "CHUNK_BYTES", 1)
    monkeypatch.setattr(moments_module(), "POSITIONS", 10**6)
    graph = Graph(with_node_names(refine_model()))
    nodes = [n for n in graph.model.graph.node if n.op_type == "Conv"]
    chunks = list(collect_moments(graph, nodes, images(), largest=100))
    assert len(chunks) == len(nodes)
    assert set().union(*chunks) == set(whole.weights)
