import numpy as np
import onnx
import pytest
from graphs import make_model, refine_model, run
from onnx import TensorProto, helper, numpy_helper

from deploy.graph.graph import Graph, count_ops
from deploy.graph.half import emulate_half
from deploy.quantize.fp16 import convert_fp16

IMAGE = np.random.default_rng(0).standard_normal((1, 3, 16, 16), dtype=np.float32)


def test_convert_fp16_follows_the_float_graph() -> None:
    model = refine_model()
    half = convert_fp16(Graph(model), {})
    onnx.checker.check_model(half.model, full_check=True)
    expected, found = run(model, IMAGE), run(half.model, IMAGE)
    error = np.abs(expected - found).max() / np.ptp(expected)
    assert 0 < error < 2e-3
    assert half.kept_float == {}


def test_convert_fp16_borders_are_float32_and_weights_are_halves() -> None:
    model = convert_fp16(Graph(refine_model()), {}).model
    borders = [*model.graph.input, *model.graph.output]
    assert {v.type.tensor_type.elem_type for v in borders} == {TensorProto.FLOAT}
    assert not [t.name for t in model.graph.initializer if t.data_type == TensorProto.FLOAT]
    assert count_ops(model)["Cast"] == 2


def test_convert_fp16_resize_keeps_its_sizes() -> None:
    model = convert_fp16(Graph(refine_model()), {}).model
    sizes = next(t for t in model.graph.initializer if t.name == "sizes")
    assert sizes.data_type == TensorProto.INT64


def test_convert_fp16_nodes_beyond_the_range_stay_float_and_are_named() -> None:
    model = refine_model()
    half = convert_fp16(Graph(model), {"c3": 70_000.0})
    assert set(half.kept_float) == {"depthwise", "resize"}
    assert "c3 reaches 70000, beyond 65504" in half.kept_float["resize"]
    onnx.checker.check_model(half.model, full_check=True)
    np.testing.assert_allclose(run(half.model, IMAGE), run(model, IMAGE), atol=2e-2)


def test_emulate_half_without_the_exception_overflows() -> None:
    model = make_model(
        [helper.make_node("Conv", ["image", "w"], ["logits"], name="conv")],
        {"w": np.full((4, 3, 1, 1), 60_000, dtype=np.float32)},
    )
    image = np.full((1, 3, 16, 16), 2, dtype=np.float32)
    half = convert_fp16(Graph(model), {}).model
    assert not np.isinf(run(half, image)).any()  # onnxruntime alone hides it
    assert np.isinf(run(emulate_half(half), image)).all()
    kept = convert_fp16(Graph(model), {"logits": 360_000.0}).model
    np.testing.assert_array_equal(run(emulate_half(kept), image), run(model, image))


def test_emulate_half_rounds_every_activation_as_numpy_does() -> None:
    weight = np.random.default_rng(1).standard_normal((4, 3, 1, 1), dtype=np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"], name="conv"),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("Add", ["r", "r"], ["s"], name="add"),
        helper.make_node("Mul", ["s", "s"], ["logits"], name="mul"),
    ]
    model = make_model(nodes, {"w": weight})
    found = run(emulate_half(convert_fp16(Graph(model), {}).model), IMAGE)

    def half(x: np.ndarray) -> np.ndarray:
        return x.astype(np.float16).astype(np.float32)

    image, w = half(IMAGE)[0], half(weight)[:, :, 0, 0]
    convolved = half(np.maximum(np.einsum("oc,chw->ohw", w, image), 0))
    expected = half(half(convolved * 2) ** 2)
    equal = found[0] == expected
    assert equal.mean() > 0.99  # the order of the sums may turn a last bit
    np.testing.assert_allclose(found[0], expected, rtol=2e-3)


def test_emulate_half_keeps_activations_fused() -> None:
    model = emulate_half(convert_fp16(Graph(refine_model()), {}).model)
    producers = Graph(model).producers
    assert producers["c1"].op_type == "Conv"
    assert producers["r1_exact"].op_type == "Relu"
    assert {t.data_type for t in model.graph.initializer} <= {TensorProto.FLOAT, TensorProto.INT64}


def test_convert_fp16_constant_beyond_the_range_keeps_its_node_float() -> None:
    model = refine_model()
    bias = next(t for t in model.graph.initializer if t.name == "b4")
    bias.CopyFrom(numpy_helper.from_array(np.full(4, 1e6, dtype=np.float32), "b4"))
    half = convert_fp16(Graph(model), {})
    assert list(half.kept_float) == ["classifier"]
    assert np.isfinite(run(half.model, IMAGE)).all()


def test_convert_fp16_unknown_operator_stays_float() -> None:
    model = make_model(
        [
            helper.make_node("Softplus", ["image"], ["a"], name="softplus"),
            helper.make_node("Relu", ["a"], ["b"], name="relu"),
            helper.make_node("Softplus", ["b"], ["logits"], name="softplus2"),
        ],
        {},
    )
    half = convert_fp16(Graph(model), {})
    assert list(half.kept_float) == ["softplus", "softplus2"]
    onnx.checker.check_model(half.model, full_check=True)
    np.testing.assert_allclose(run(half.model, IMAGE), run(model, IMAGE), rtol=2e-3)


def test_convert_fp16_output_that_is_also_consumed_stays_connected() -> None:
    model = make_model(
        [
            helper.make_node("Relu", ["image"], ["logits"], name="relu"),
            helper.make_node("Add", ["logits", "logits"], ["twice"], name="add"),
        ],
        {},
    )
    model.graph.output.append(helper.make_tensor_value_info("twice", TensorProto.FLOAT, None))
    model = onnx.shape_inference.infer_shapes(model)
    model.graph.output[1].CopyFrom(onnx.shape_inference.infer_shapes(model).graph.output[1])
    half = convert_fp16(Graph(model), {"twice": 1e9})
    onnx.checker.check_model(half.model, full_check=True)
    np.testing.assert_allclose(run(half.model, IMAGE), np.maximum(IMAGE, 0), rtol=1e-3)


@pytest.mark.parametrize("magnitude", [65_504.0, 1.0])
def test_convert_fp16_largest_half_is_still_inside(magnitude: float) -> None:
    assert convert_fp16(Graph(refine_model()), {"c3": magnitude}).kept_float == {}
