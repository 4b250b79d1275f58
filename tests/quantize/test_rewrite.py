from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from graphs import make_model, quantized, refine_model, run
from onnx import helper

from deploy.graph.graph import Graph, attributes, count_ops
from deploy.quantize.direct_convolution import align_channels
from deploy.quantize.rewrite import rewrite, separate_pooling
from deploy.runtimes.sessions import open_session
from deploy.targets import PROFILES, lint

R = np.random.default_rng(1)


def weight(*shape: int) -> np.ndarray:
    return (R.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def stem_model(
    *, size: tuple[int, int] = (32, 32), kernel: Sequence[int] = (3, 3), **conv: Any
) -> onnx.ModelProto:
    """Return a convolution of the image, an activation, a large pooling and a classifier."""
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c1"], name="stem", **conv),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu"),
        helper.make_node(
            "MaxPool", ["r1"], ["p1"], name="pool", kernel_shape=[5, 5], pads=[2, 2, 2, 2]
        ),
        helper.make_node(
            "Conv", ["p1", "w2", "b2"], ["logits"], name="classifier", pads=[1, 1, 1, 1]
        ),
    ]
    constants = {"w1": weight(16, 3, *kernel), "b1": weight(16, 1).ravel()}
    constants |= {"w2": weight(21, 16, 3, 3), "b2": weight(21, 1).ravel()}
    return make_model(nodes, constants, input_shape=(1, 3, *size))


def int8(model: onnx.ModelProto) -> onnx.ModelProto:
    height, width = Graph(model).input_size
    return quantized(model, [R.standard_normal((1, 3, height, width), dtype=np.float32)])


def run_optimized(model: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    logits: np.ndarray = open_session(model).run(None, {"image": image})[0]
    return logits


def assert_same(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    """Check the graph, that it breaks no rule, and that its logits are bit for bit the same."""
    onnx.checker.check_model(after, full_check=True)
    assert lint(after, "ort") == lint(before, "ort") == []
    height, width = Graph(before).input_size
    for scale in (1, 10):  # inside the calibrated range and far beyond
        image = scale * R.standard_normal((1, 3, height, width), dtype=np.float32)
        for function in (run, run_optimized):
            np.testing.assert_array_equal(function(after, image), function(before, image))


def executed(model: onnx.ModelProto, tmp_path: pytest.TempPathFactory) -> dict[str, int]:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = f"{tmp_path}/optimized.onnx"
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model.SerializeToString(), options)
    return count_ops(onnx.load(options.optimized_model_filepath))


@pytest.mark.parametrize(
    "pool",
    [
        {"pads": [2, 2, 2, 2]},
        {"pads": [0, 1, 2, 3]},
        {"pads": [4, 4, 4, 4]},
        {"strides": [2, 3]},
        {"strides": [3, 2], "pads": [1, 2, 0, 1], "ceil_mode": 1},
        {"dilations": [2, 1], "pads": [3, 2, 4, 2]},
        {"strides": [2, 1], "dilations": [1, 3], "ceil_mode": 1},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER"},
        {"auto_pad": "VALID"},
        {"kernel_shape": [5, 7], "pads": [1, 5, 2, 6]},
    ],
)
def test_separate_pooling_is_exact_whatever_the_window(pool: dict[str, Any]) -> None:
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["c1"], name="conv"),
        helper.make_node(
            "MaxPool", ["c1"], ["logits"], name="pool", **{"kernel_shape": [5, 5]} | pool
        ),
    ]
    before = int8(make_model(nodes, {"w1": weight(8, 3, 1, 1)}, input_shape=(1, 3, 23, 29)))
    after = separate_pooling(before)
    assert count_ops(after)["MaxPool"] == 2
    kernels = [attributes(n)["kernel_shape"] for n in after.graph.node if n.op_type == "MaxPool"]
    kernel = pool.get("kernel_shape", [5, 5])
    assert kernels == [[kernel[0], 1], [1, kernel[1]]]
    assert_same(before, after)


@pytest.mark.parametrize("outputs", [["p1"], ["p1", "where"]])
def test_separate_pooling_small_or_float_or_with_indices_is_left_alone(outputs: list[str]) -> None:
    kernel = [3, 5] if len(outputs) == 1 else [5, 5]
    nodes = [
        helper.make_node("MaxPool", ["image"], outputs, name="pool", kernel_shape=kernel),
        helper.make_node("Conv", ["p1", "w1"], ["logits"], name="conv"),
    ]
    model = make_model(nodes, {"w1": weight(8, 3, 1, 1)})
    assert count_ops(separate_pooling(model))["MaxPool"] == 1
    if len(outputs) == 1:
        assert count_ops(separate_pooling(int8(model)))["MaxPool"] == 1


@pytest.mark.parametrize(
    "conv",
    [{"strides": [2, 2], "pads": [1, 1, 1, 1]}, {}, {"dilations": [2, 1], "pads": [0, 1, 2, 0]}],
)
@pytest.mark.parametrize("kernel", [(3, 3), (7, 7), (1, 2)])
def test_align_channels_of_the_image_is_exact(
    kernel: tuple[int, int], conv: dict[str, Any]
) -> None:
    before = int8(stem_model(kernel=kernel, size=(32, 27), **conv))
    after = align_channels(before)
    assert count_ops(after)["Pad"] == 1
    assert Graph(after).constants["stem.weight_quantized"].shape == (16, 4, *kernel)
    assert Graph(after).input_size == (32, 27)
    assert_same(before, after)


def test_align_channels_image_that_is_read_twice_or_by_1x1_is_left_alone() -> None:
    for shape, count in (((16, 3, 3, 3), 2), ((16, 3, 1, 1), 1)):
        nodes = [
            helper.make_node("Conv", ["image", "w"], [f"c{i}"], name=f"conv{i}")
            for i in range(count)
        ]
        nodes.append(helper.make_node("Add", ["c0", f"c{count - 1}"], ["s"], name="add"))
        nodes.append(helper.make_node("Conv", ["s", "v"], ["logits"], name="last"))
        before = int8(make_model(nodes, {"w": weight(*shape), "v": weight(2, 16, 1, 1)}))
        assert align_channels(before).graph.node == before.graph.node


@pytest.mark.parametrize("channels", [1, 4, 16, 21, 24, 30])
@pytest.mark.parametrize("bias", [True, False])
def test_align_channels_is_exact_and_fills_up_to_what_is_direct(channels: int, bias: bool) -> None:
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["c1"], name="conv"),
        helper.make_node(
            "Conv", ["c1", "w2", *["b2"] * bias], ["c2"], name="wide", pads=[1, 1, 1, 1]
        ),
        helper.make_node("Clip", ["c2", "low", "high"], ["k2"], name="clip"),
        helper.make_node("Conv", ["k2", "w3"], ["logits"], name="last"),
    ]
    constants = {"w1": weight(8, 3, 1, 1), "w2": weight(channels, 8, 3, 3)}
    constants |= {"w3": weight(5, channels, 1, 1), "b2": weight(channels, 1).ravel()}
    constants |= {"low": np.float32(0), "high": np.float32(6)}
    before = int8(make_model(nodes, constants))
    after = align_channels(before)
    filled = {1: 16, 4: 16, 16: 16, 21: 24, 24: 24, 30: 32}[channels]
    assert Graph(after).constants["wide.weight_quantized"].shape[0] == filled
    assert count_ops(after).get("Slice", 0) == (filled != channels)
    assert Graph(after).constants["last.weight_quantized"].shape[0] == 5  # 1x1: no windows
    assert_same(before, after)


def test_align_channels_still_runs_in_integer_kernels(tmp_path: pytest.TempPathFactory) -> None:
    after = rewrite(int8(stem_model(strides=[2, 2], pads=[1] * 4)), PROFILES["ort"])
    ops = executed(after, tmp_path)
    assert ops["QLinearConv"] == 2
    assert "Conv" not in ops


def test_align_channels_grouped_and_float_convolutions_are_left_alone() -> None:
    before = int8(refine_model())
    after = align_channels(before)
    depthwise = "depthwise.weight_quantized"
    assert Graph(after).constants[depthwise].shape == Graph(before).constants[depthwise].shape
    assert count_ops(after)["Slice"] == 2  # of the first convolution and of the classifier
    model = refine_model()
    assert align_channels(model).graph.node == model.graph.node


@pytest.mark.parametrize("model", [refine_model(), stem_model(strides=[2, 2], pads=[1] * 4)])
def test_rewrite_is_exact_and_leaves_its_input_unchanged(model: onnx.ModelProto) -> None:
    before = int8(model)
    content = before.SerializeToString(deterministic=True)
    after = rewrite(before, PROFILES["ort"])
    assert before.SerializeToString(deterministic=True) == content
    assert_same(before, after)
    assert after.graph.output[0] == before.graph.output[0]


def test_align_channels_of_one_scale_for_a_weight_keeps_that_scale() -> None:
    before = quantized(stem_model(), [np.ones((1, 3, 32, 32), np.float32)], "pow2")
    after = align_channels(before)
    assert Graph(after).constants["classifier.weight_scale"].shape == ()
    image = R.standard_normal((1, 3, 32, 32), dtype=np.float32)
    np.testing.assert_array_equal(run(after, image), run(before, image))


def test_rewrite_is_of_its_profile_only() -> None:
    before = int8(stem_model(strides=[2, 2], pads=[1] * 4))
    assert rewrite(before, PROFILES["openvino"]) is before
    ops = count_ops(rewrite(before, PROFILES["ort"]))
    assert (ops["MaxPool"], ops["Pad"], ops["Slice"]) == (2, 1, 1)


def test_rewrite_twice_changes_nothing_more() -> None:
    once = rewrite(int8(stem_model(strides=[2, 2], pads=[1] * 4)), PROFILES["ort"])
    assert count_ops(rewrite(once, PROFILES["ort"])) == count_ops(once)
