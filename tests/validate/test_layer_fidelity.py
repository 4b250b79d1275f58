"""SQNR layer by layer, against the same graphs run one tensor at a time without optimizations."""

import math

import numpy as np
import onnx
import pytest
from graphs import quantized, refine_model, relu_beside_sum_model
from numpy.typing import NDArray
from onnx import helper

from deploy.calibration import observe
from deploy.graph.graph import Graph
from deploy.graph.metadata import is_equalized
from deploy.quantize.equalize import equalize
from deploy.quantize.placement import place
from deploy.quantize.recipe import RECIPES, Levers, RecipeName, choose_recipes
from deploy.quantize.rewrite import rewrite
from deploy.targets import PROFILES
from deploy.validate import layer_fidelity as layers
from deploy.validate.layer_fidelity import LayerSqnr, layer_sqnr

IMAGES = [
    np.random.default_rng(seed).standard_normal((1, 3, 16, 16)).astype(np.float32)
    for seed in range(3)
]


def values(model: onnx.ModelProto, tensor: str) -> list[NDArray[np.float32]]:
    """Return a tensor's values on each image, from a session without optimizations."""
    import onnxruntime

    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    del tapped.graph.output[:]
    tapped.graph.output.append(helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(tapped.SerializeToString(), options)
    return [session.run(None, {"image": image})[0] for image in IMAGES]


def expected(model: onnx.ModelProto, int8: onnx.ModelProto, tensor: str, other: str) -> float:
    pairs = list(zip(values(model, tensor), values(int8, other), strict=True))
    signal = sum(float(np.square(a, dtype=np.float64).sum()) for a, _ in pairs)
    noise = sum(float(np.square(a - b, dtype=np.float64).sum()) for a, b in pairs)
    return 10 * math.log10(signal / noise)


def by_node(found: list[LayerSqnr]) -> dict[str, float]:
    return {layer.layer.node: layer.sqnr_db for layer in found}


def test_layers_are_all_convolutions_and_sums_after_their_activation() -> None:
    model = refine_model()
    found = layer_sqnr(model, quantized(model, IMAGES), IMAGES)
    assert [(f.layer.node, f.layer.tensor) for f in found] == [
        ("conv1", "r1"),
        ("conv2", "k2"),
        ("depthwise", "c3"),
        ("add", "r4"),
        ("add_linear", "s5"),
        ("classifier", "logits"),
    ]


def test_layers_sqnr_is_that_of_the_dequantized_tensor() -> None:
    model = refine_model()
    int8 = quantized(model, IMAGES)
    found = by_node(layer_sqnr(model, int8, IMAGES))
    for node, tensor in (("conv1", "r1"), ("conv2", "k2"), ("depthwise", "c3"), ("add", "r4")):
        wanted = expected(model, int8, tensor, f"{tensor}_dequantized")
        # onnxruntime's integer kernels may round a tie the other way than its float kernels
        assert found[node] == pytest.approx(wanted, abs=0.05)
    assert found["classifier"] == pytest.approx(expected(model, int8, "logits", "logits"), abs=0.05)


def test_layers_a_result_that_stays_float_is_compared_as_it_is() -> None:
    model = refine_model()
    int8 = quantized(model, IMAGES, exclude=frozenset({"classifier"}))
    assert "logits_quantized" not in Graph(int8).producers
    found = by_node(layer_sqnr(model, int8, IMAGES))
    assert found["classifier"] == pytest.approx(expected(model, int8, "logits", "logits"), abs=0.05)


def test_layers_what_both_a_relu_and_a_sum_take_is_compared_before_the_relu() -> None:
    model = relu_beside_sum_model()
    found = layer_sqnr(model, quantized(model, IMAGES), IMAGES)
    assert [f.layer.tensor for f in found] == ["a", "c", "d", "logits"]
    assert all(20 < f.sqnr_db < 70 for f in found)


@pytest.mark.parametrize("target", PROFILES)
def test_layers_of_every_targets_graph_are_found(target: str) -> None:
    model = refine_model(classes=21)  # filled up to 24 and sliced again for onnxruntime
    int8 = rewrite(quantized(model, IMAGES, target), PROFILES[target])
    found = by_node(layer_sqnr(model, int8, IMAGES))
    assert found.keys() >= {"conv1", "conv2", "depthwise", "classifier"}
    assert all(10 < sqnr < 70 for sqnr in found.values())


def test_layers_in_many_passes_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = refine_model()
    int8 = quantized(model, IMAGES)
    once = by_node(layer_sqnr(model, int8, IMAGES))
    monkeypatch.setattr(layers, "CHUNK_BYTES", 1)
    # with other outputs the runtime fuses other nodes, and sums in another order
    assert by_node(layer_sqnr(model, int8, IMAGES)) == pytest.approx(once, abs=0.05)


def test_layers_a_result_of_zeros_has_no_sqnr() -> None:
    model = relu_beside_sum_model()
    zeros = [np.zeros_like(IMAGES[0])]
    found = layer_sqnr(model, quantized(model, IMAGES), zeros)
    assert all(math.isnan(f.sqnr_db) for f in found)


def test_layers_of_equalized_channels_are_compared_up_to_their_factors() -> None:
    model = refine_model()
    graph = Graph(model)
    for name in ("w1", "b1"):  # one channel that is much larger than the others
        for tensor in model.graph.initializer:
            if tensor.name == name:
                value = onnx.numpy_helper.to_array(tensor).copy()
                value[0] *= 30
                tensor.CopyFrom(onnx.numpy_helper.from_array(value, name))
    observed = place(graph, PROFILES["ort"]).observed
    shapes = {name: graph.shapes[name] for name in observed}
    equalized = equalize(graph, observe(model, shapes, IMAGES)).model
    int8 = quantized(equalized, IMAGES)
    plain = by_node(layer_sqnr(model, int8, IMAGES))
    fitted = by_node(layer_sqnr(model, int8, IMAGES, equalized=True))
    assert plain["conv1"] < 10
    assert all(sqnr > 20 for sqnr in fitted.values())


def test_recipes_tell_whether_they_equalize() -> None:
    for name, recipe in RECIPES.items():
        assert is_equalized({"recipe": recipe.name}) is recipe.equalize, name
    for name in (RecipeName.FAST, RecipeName.ACCURATE):
        for equalize_ in (True, False):
            (recipe,) = choose_recipes(name, Levers(equalize=equalize_))
            assert is_equalized({"recipe": recipe.name}) is equalize_
    assert not is_equalized({})
