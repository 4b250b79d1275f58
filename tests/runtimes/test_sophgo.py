"""Sophgo: the table that its compiler reads, what it writes, and its simulators where installed."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import quantized, refine_model, run
from toolchains import needs_sophgo

from deploy.errors import DeployError, GraphError
from deploy.graph.carried import carried
from deploy.graph.graph import Graph
from deploy.quantize.fp16 import convert_fp16
from deploy.runtimes import sophgo
from deploy.runtimes.sophgo_files import calibration_table, describe, operations, read_profile
from deploy.targets import lint

IMAGE = np.random.default_rng(1).standard_normal((1, 3, 16, 16), dtype=np.float32)
MODULE = """\
#loc = loc(unknown)
    %5 = "tpu.Conv2D"(%2, %3, %4) {group = 1 : i64} : (tensor<1x3x8x8x!quant.uniform<i8:f32, \
0.02>>, tensor<8x3x3x3xsi8>) -> tensor<1x8x4x4x!quant.uniform<u8:f32, 0.0235>> loc(#loc5)
    %6 = "tpu.Conv2D"(%5, %3, %4) {group = 1 : i64} : (tensor<1x3x8x8xf16>, tensor<8x3x3x3xf16>) \
-> tensor<1x8x4x4xf16> loc(#loc6)
    %7 = "tpu.Cast"(%6) : (tensor<1x8x4x4xf16>) -> tensor<1x8x4x4x!quant.uniform<i8:f16, 0.3>> \
loc(#loc7)
    %8 = "tpu.Interp"(%7) : (tensor<1x8x4x4xf16>) -> tensor<1x8x8x8x!quant.calibrated<f16<-4:4>>> \
loc(#loc8)
#loc5 = loc("relu_Relu")
#loc6 = loc("conv2_Conv")
#loc8 = loc("up_Resize")
"""
PROFILE = """\
API_END total_cycle:227773|b:663|g:99
GDMA SUMMARY : |dr[0] S2L:6822784|dr[1] L2S:1290240|dr[2] S2S:0|dr[3] L2L:0
flops: 1120658944, runtime: 0.227773ms, ComputationAbility: 4.920070T
"""


def test_the_table_has_every_tensor_by_the_compilers_name() -> None:
    given = carried(quantized(refine_model(), [IMAGE], "sophgo"))
    table = calibration_table(given)
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines()[1:]}
    graph = Graph(given.model)
    names = {f"{name}_{n.op_type}" for n in graph.model.graph.node for name in n.output}
    assert rows.keys() == names | {graph.input.name}
    for name, (threshold, low, high) in rows.items():
        tensor = name.rpartition("_")[0] if name != graph.input.name else name
        assert (float(low), float(high)) == pytest.approx(given.ranges[tensor], abs=1e-6)
        assert float(threshold) == pytest.approx(max(-float(low), float(high)))


def test_a_tensor_without_a_range_is_one_line() -> None:
    given = carried(quantized(refine_model(), [IMAGE], "openvino"))  # its logits have none
    with pytest.raises(GraphError, match="has no range: quantize the graph with --target sophgo"):
        calibration_table(given)


def test_what_computes_in_8_bits_is_read_from_the_module() -> None:
    assert [(operator, is_8) for operator, is_8, _ in operations(MODULE)] == [
        ("Conv2D", True),
        ("Conv2D", False),
        ("Cast", True),
        ("Interp", False),
    ]
    found = describe(MODULE, {"ddr_read_bytes": 1}, {"estimated_ms": 0.5})
    assert found.integer_convolutions == 1
    assert found.float_convolutions == ("conv2_Conv",)
    assert found.float_nodes == {"Interp": ("up_Resize",)}
    assert found.conversions == 1
    assert found.device == {"estimated_ms": 0.5}


def test_the_compilers_estimates_are_read() -> None:
    footprint = {"ddr_read_bytes": 6822784, "ddr_write_bytes": 1290240}
    assert read_profile(PROFILE) == (footprint, {"estimated_ms": 0.227773})
    assert read_profile("nothing of the kind") == ({}, {})


def test_the_file_decides_the_precision() -> None:
    model = refine_model()
    given = carried(quantized(model, [IMAGE], "sophgo"))
    assert sophgo.precision_of(given, calibration_table(given)) == "INT8"
    half = carried(convert_fp16(Graph(model), {}).model)
    assert sophgo.precision_of(half, None) == "F16"
    assert sophgo.precision_of(carried(model), None) == "BF16"


def test_the_agreement_of_two_simulations() -> None:
    one = np.zeros((2, 1, 2), np.float32)
    one[0] = 1
    other = one.copy()
    other[1, 0, 0] = 3  # one label of two changes
    found = sophgo.agreement([(one, one), (one, other)])
    assert found["images"] == 2
    assert found["agreement"] == 0.75
    assert found["sqnr_db"] == pytest.approx(10 * np.log10(4 / 9))
    assert "sqnr_db" not in sophgo.agreement([(one, one)])


def test_its_graph_keeps_its_rules_and_an_unknown_chip_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = quantized(refine_model(), [IMAGE], "sophgo")
    assert not lint(model, "sophgo", "cv186x")
    with pytest.raises(DeployError, match="no chip 'bm1': choose one of bm1684x, bm1688, cv186x"):
        sophgo.on("bm1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(DeployError, match="toolchain sophgo is not installed: run 'deploy tool"):
        sophgo.SophgoRunner(tmp_path / "model.onnx", "bm1684x")


@pytest.mark.long  # compiles for half a minute
@needs_sophgo
@pytest.mark.parametrize("chip", sophgo.CHIPS)
def test_module_and_chip_compute_what_the_graph_says(chip: str, tmp_path: Path) -> None:
    model = quantized(refine_model(), [IMAGE], "sophgo")
    onnx.save(model, tmp_path / "model.onnx")
    runner = sophgo.SophgoRunner(tmp_path / "model.onnx", chip)
    expected, found = run(model, IMAGE), runner(IMAGE)
    assert found.shape == expected.shape[1:]
    noise = np.square(expected[0] - found).sum()
    assert 10 * np.log10(np.square(expected).sum() / noise) > 20
    execution = runner.execution()
    assert execution.integer_convolutions == execution.convolutions > 0
    assert execution.device is not None
    assert execution.device["estimated_ms"] > 0
    assert execution.device["images"] == 1
    assert execution.device["agreement"] > 0.9
    assert runner.bmodel.stat().st_size > 0
