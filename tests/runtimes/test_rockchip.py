"""Rockchip: what its import makes of our integers, and its simulator where it is installed."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import quantized, refine_model, run
from onnx import helper
from toolchains import needs_rockchip

from deploy.errors import DeployError, GraphError
from deploy.graph.qdq import QdqGraph
from deploy.lint.rules import check
from deploy.quantize.rewrite import rewrite
from deploy.runtimes import rockchip
from deploy.runtimes.rockchip_graph import WEIGHT_MAX, layers, regridded
from deploy.targets import find_profile, lint
from deploy.targets.rockchip import ROCKCHIP

IMAGE = np.random.default_rng(1).standard_normal((1, 3, 16, 16), dtype=np.float32)
LOG = """\
D RKNN: [21:53:10.848]            Network Layer Information Table
D RKNN: [21:53:10.848] ---------------------------
D RKNN: [21:53:10.848] ID   OpType        DataType Target InputShape      OutputShape   FullName
D RKNN: [21:53:10.848] ---------------------------
D RKNN: [21:53:10.848] 0    InputOperator INT8     CPU    \\               (1,3,8,8)     0/0/0 0 InputOperator:image
D RKNN: [21:53:10.848] 1    ConvClip      INT8     NPU    (1,3,8,8),(8)   (1,8,4,4)     7/3/9 5 Conv:conv1
D RKNN: [21:53:10.848] 2    Conv          FLOAT16  NPU    (1,8,4,4),(8)   (1,8,4,4)     7/3/9 5 Conv:conv2
D RKNN: [21:53:10.848] 3    Resize        INT8     CPU    (1,8,4,4)       (1,8,8,8)     0/0/0 4 Resize:up
D RKNN: [21:53:10.848] ---------------------------
D RKNN: [21:53:10.926] 4    Conv          INT8     NPU    beyond the table: not a layer Conv:conv3
"""  # noqa: E501 - as it is


def imported(q: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return what rknn-toolkit2 2.5.0 makes of a weight: rounded to a coarser grid."""
    grid = scale.reshape(-1, 1, 1, 1) * 128 / 127
    return np.asarray(np.rint(q * scale.reshape(-1, 1, 1, 1) / grid) * grid)


def test_every_integer_that_the_target_uses_survives_the_import() -> None:
    model = quantized(refine_model(), [IMAGE], "rockchip")
    before, after = QdqGraph.of(model), QdqGraph.of(regridded(model))
    seen = 0
    for node in before.model.graph.node:
        if node.op_type != "Conv":
            continue
        (same,) = (n for n in after.model.graph.node if n.name == node.name)
        q, affine = before.integers(node.input[1]), before.dequantized(node.input[1])
        finer, changed = after.integers(same.input[1]), after.dequantized(same.input[1])
        assert q is not None and affine is not None  # noqa: PT018
        assert finer is not None and changed is not None  # noqa: PT018
        assert np.abs(q.astype(int)).max() == WEIGHT_MAX
        meant = q * affine.scale.reshape(-1, 1, 1, 1)
        np.testing.assert_allclose(imported(finer, changed.scale), meant, rtol=1e-5, atol=1e-9)
        # without that they are rounded again
        assert np.abs(imported(q, affine.scale) - meant).max() > 0.4 * affine.scale.min()
        seen += 1
    assert seen == 4


def test_all_integers_round_back() -> None:
    q = np.arange(-WEIGHT_MAX, WEIGHT_MAX + 1)
    assert np.array_equal(np.rint(np.rint(q * 128 / 127) * 127 / 128), q)
    assert np.abs(np.rint(q * 128 / 127)).max() == 127


def test_a_scale_whose_zero_point_is_the_middle_is_divided_and_others_stay() -> None:
    before = QdqGraph.of(quantized(refine_model(), [IMAGE], "tensorrt"))  # all are symmetric
    after = QdqGraph.of(regridded(before.model))
    for node in before.model.graph.node:
        if node.op_type == "QuantizeLinear":
            (same,) = (n for n in after.model.graph.node if n.name == node.name)
            ratio = before.affine(node).scale / after.affine(same).scale
            assert ratio == pytest.approx(128 / 127)
    one = QdqGraph.of(quantized(refine_model(), [IMAGE], "rockchip"))
    other = QdqGraph.of(regridded(one.model))
    (image,) = (n for n in one.model.graph.node if n.name == "image_quantized/QuantizeLinear")
    (same,) = (n for n in other.model.graph.node if n.name == image.name)
    assert one.affine(image).zero_point.item() != 128
    assert one.affine(image).scale == other.affine(same).scale


def test_its_table_of_layers_is_read_to_its_end() -> None:
    assert list(layers(LOG)) == [
        ("InputOperator", "INT8", "CPU", "image"),
        ("ConvClip", "INT8", "NPU", "conv1"),
        ("Conv", "FLOAT16", "NPU", "conv2"),
        ("Resize", "INT8", "CPU", "up"),
    ]
    assert not list(layers("nothing of the kind"))


def test_weights_that_would_be_rounded_again_and_resizes_on_the_cpu_are_found() -> None:
    clean = rewrite(quantized(refine_model(), [IMAGE], "rockchip"), ROCKCHIP.profile)
    assert not lint(clean, "rockchip", "rk3588")
    foreign = quantized(refine_model(), [IMAGE], "sophgo")
    (finding,) = (f for f in lint(foreign, "rockchip", "rk3588") if f.rule == "cpu-resize")
    assert "x8" in finding.problem
    found = check(foreign, find_profile("rockchip"), ROCKCHIP.rules)
    assert {each.rule for each in found} == {"weight-range"}


def test_what_it_cannot_do_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeployError, match=r"no chip 'rk1': choose one of rk3566, rk3568"):
        rockchip.on("rk1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    onnx.save(refine_model(), tmp_path / "model.onnx")
    with pytest.raises(DeployError, match="toolchain rockchip is not installed: run 'deploy tool"):
        rockchip.RockchipRunner(tmp_path / "model.onnx", "rk3588")


@needs_rockchip
def test_the_simulator_computes_what_the_graph_says(tmp_path: Path) -> None:
    model = rewrite(quantized(refine_model(), [IMAGE], "rockchip"), ROCKCHIP.profile)
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    runner = rockchip.RockchipRunner(path, "rk3588")
    expected, found = run(model, IMAGE), runner(IMAGE)
    assert found.shape == expected.shape[1:]
    noise = np.square(expected[0] - found).sum()
    assert 10 * np.log10(np.square(expected).sum() / noise) > 25
    execution = runner.execution()
    assert execution.integer_convolutions == 6  # two of them in place of the Resize
    assert not execution.float_convolutions
    on_cpu = {operator for operator, _, unit, _ in runner.layers if unit == "CPU"}
    assert on_cpu <= {"InputOperator", "OutputOperator"}
    assert execution.footprint is not None
    assert execution.footprint["context_bytes"] == runner.rknn.stat().st_size > 0


def test_a_graph_of_bare_integers_is_refused_before_it_is_compiled() -> None:
    model = quantized(refine_model(), [IMAGE], "rockchip")
    quantizer = next(n for n in model.graph.node if n.op_type == "QuantizeLinear")
    node = helper.make_node("MaxPool", [quantizer.output[0]], ["x"], "bare", kernel_shape=[1, 1])
    model.graph.node.append(node)
    with pytest.raises(GraphError, match=r"bare \(MaxPool\) computes on bare integers"):
        rockchip.for_compiler(model)
