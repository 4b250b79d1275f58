from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from graphs import make_model, quantized, run
from onnx import helper

from deploy.graph.graph import count_ops
from deploy.quantize.resize_convolution import convolve_resizes, quantize_shares, shares
from deploy.quantize.rewrite import rewrite
from deploy.runtimes.rockchip_graph import doubles
from deploy.targets import find_profile, lint
from deploy.targets.rockchip import ROCKCHIP

R = np.random.default_rng(7)
WEIGHT_MAX = find_profile("rockchip").weight_max


def resizing(given: tuple[int, int], made: tuple[int, int], **how: Any) -> onnx.ModelProto:
    """Return a convolution, a Resize and a convolution."""
    bilinear = {"mode": "linear", "coordinate_transformation_mode": "align_corners"} | how
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["c1"], name="first"),
        helper.make_node("Resize", ["c1", "", "", "sizes"], ["up"], name="resize", **bilinear),
        helper.make_node("Conv", ["up", "w2"], ["logits"], name="last"),
    ]
    constants: dict[str, Any] = {
        "w1": R.standard_normal((8, 3, 1, 1)).astype(np.float32),
        "w2": R.standard_normal((4, 8, 1, 1)).astype(np.float32),
        "sizes": np.array([1, 8, *made], np.int64),
    }
    return make_model(nodes, constants, input_shape=(1, 3, *given))


def int8(model: onnx.ModelProto, size: tuple[int, int], target: str) -> onnx.ModelProto:
    images = [R.standard_normal((1, 3, *size), dtype=np.float32)]
    return rewrite(quantized(model, images, target), find_profile(target))


@pytest.mark.parametrize(("given", "made"), [(16, 32), (4, 8), (63, 125), (5, 3), (7, 7), (2, 9)])
def test_shares_are_those_of_onnxruntimes_resize(given: int, made: int) -> None:
    values = R.standard_normal((1, 8, given, given)).astype(np.float32)
    node = helper.make_node(
        "Resize",
        ["image", "", "", "sizes"],
        ["logits"],
        mode="linear",
        coordinate_transformation_mode="align_corners",
    )
    model = make_model([node], {"sizes": np.array([1, 8, made, made])}, input_shape=values.shape)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    expected = session.run(None, {"image": values})[0]
    along = shares(given, made)
    np.testing.assert_allclose(along @ values[0] @ along.T, expected[0], atol=1e-5)


@pytest.mark.parametrize(("given", "made"), [(16, 32), (4, 8), (8, 16), (63, 125), (5, 3), (2, 9)])
def test_quantized_shares_keep_a_constant_and_are_near(given: int, made: int) -> None:
    exact = shares(given, made)
    q, scales = quantize_shares(exact, WEIGHT_MAX)
    assert q.min() >= 0
    assert q.max() <= WEIGHT_MAX
    np.testing.assert_allclose(q.sum(axis=1) * scales, 1, rtol=1e-6)
    assert np.abs(q * scales[:, None] - exact).max() <= 1 / WEIGHT_MAX


@pytest.mark.parametrize(
    ("given", "made"), [((16, 16), (32, 32)), ((8, 5), (15, 10)), ((4, 6), (8, 4))]
)
def test_a_resize_in_8_bits_becomes_two_convolutions(
    given: tuple[int, int], made: tuple[int, int]
) -> None:
    before = int8(resizing(given, made), given, "sophgo")  # its profile has no rewrites
    after = convolve_resizes(before, WEIGHT_MAX)
    onnx.checker.check_model(after, full_check=True)
    counts = count_ops(after)
    assert "Resize" not in counts
    assert (counts["Conv"], counts["Transpose"]) == (4, 3)
    image = R.standard_normal((1, 3, *given), dtype=np.float32)
    expected, found = run(before, image), run(after, image)
    noise = np.square(expected - found).sum()
    assert 10 * np.log10(np.square(expected).sum() / noise) > 30


@pytest.mark.parametrize(
    ("made", "how"),
    [
        ((31, 31), {}),  # doubles exactly: the NPU does it
        ((32, 32), {"coordinate_transformation_mode": "half_pixel"}),
        ((32, 32), {"mode": "nearest", "nearest_mode": "floor"}),
    ],
)
def test_other_resizes_are_left_alone(made: tuple[int, int], how: dict[str, Any]) -> None:
    model = int8(resizing((16, 16), made, **how), (16, 16), "rockchip")
    assert count_ops(model)["Resize"] == 1
    assert doubles((16, 16), made) == (made == (31, 31))


def test_float_resizes_are_left_alone() -> None:
    model = resizing((16, 16), (32, 32))
    assert count_ops(convolve_resizes(model, WEIGHT_MAX)) == count_ops(model)


@pytest.mark.parametrize("chip", sorted(ROCKCHIP.chips))
def test_rockchips_graphs_break_no_rule_of_any_chip(chip: str) -> None:
    model = int8(resizing((16, 16), (32, 32)), (16, 16), "rockchip")
    assert count_ops(model)["Conv"] == 4
    assert lint(model, "rockchip", chip) == []
