"""rf-lw-nasnet, whose operators no other variant has, on every target: random parameters, 64x64."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from deploy import models
from deploy.calibration import observe
from deploy.calibration.preprocess import Float32Array
from deploy.calibration.ranges import RangeConfig, choose_range
from deploy.export.simplify import simplify_onnx
from deploy.export.trace import compare_with_torch, export_onnx
from deploy.graph.graph import Graph, attributes, count_ops
from deploy.graph.opset11 import as_opset_11
from deploy.models.checkpoint import fill_random
from deploy.quantize.fp16 import convert_fp16
from deploy.quantize.int8 import quantize_int8
from deploy.quantize.placement import place
from deploy.runtimes.onnxruntime import OnnxRunner
from deploy.runtimes.sessions import open_session
from deploy.targets import PROFILES, lint
from deploy.targets.vacc import prove_same

pytestmark = pytest.mark.slow
SIZE = (64, 64)
OPERATORS = {"Conv": 376, "Relu": 208, "Add": 99, "AveragePool": 32, "MaxPool": 20}
IMAGES = [
    np.random.default_rng(i).standard_normal((1, 3, *SIZE), dtype=np.float32) for i in range(3)
]


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    """Return the float graph, simplified, which is equal to torch."""
    module = models.build("rf-lw-nasnet")
    fill_random(module)
    simplified = simplify_onnx(export_onnx(module, SIZE)).model
    assert compare_with_torch(simplified, module, SIZE).relative < 1e-4
    return simplified


@pytest.fixture(scope="module")
def graphs(model: onnx.ModelProto) -> dict[str, onnx.ModelProto]:
    """Return the graph of each target, by its name, all of one calibration."""
    graph = Graph(model)
    default = place(graph, PROFILES["ort"])
    statistics = observe(
        model,
        {name: graph.shapes[name] for name in default.observed},
        IMAGES[:2],
        non_negative=default.non_negative,
    )
    ranges = {name: choose_range(found, RangeConfig()) for name, found in statistics.items()}
    return {
        target: quantize_int8(graph, place(graph, profile), ranges, profile)
        for target, profile in PROFILES.items()
    }


def sqnr(expected: Float32Array, found: Float32Array) -> float:
    return float(10 * np.log10(np.square(expected).sum() / np.square(found - expected).sum()))


def test_graph_has_no_pad_slice_or_normalization(model: onnx.ModelProto) -> None:
    assert count_ops(model) == {**OPERATORS, "Concat": 16, "Resize": 3}
    assert not any(attributes(node).get("ceil_mode") for node in model.graph.node)
    graph = Graph(model)
    for concat in (node for node in model.graph.node if node.op_type == "Concat"):
        assert all(graph.made_by(name, "Relu") for name in concat.input)


def test_convolutions_are_named_after_modules(model: onnx.ModelProto) -> None:
    names = {node.name for node in model.graph.node if node.op_type == "Conv"}
    halved = {f"cell_{cell}.final_path_bn" for cell in ("stem_1", "0", "6", "12")}
    assert halved | {"conv0.conv", "dimred4", "segm"} <= names
    assert not any(name.startswith("node_") for name in names)


@pytest.mark.parametrize("target", PROFILES)
def test_every_targets_graph_is_clean_and_near(
    model: onnx.ModelProto, graphs: dict[str, onnx.ModelProto], target: str
) -> None:
    placement = place(Graph(model), PROFILES[target])
    convolutions = {node.name for node in model.graph.node if node.op_type == "Conv"}
    assert convolutions <= set(placement.nodes)
    assert [f for f in lint(graphs[target], target) if f.node not in placement.kept_float] == []
    found = OnnxRunner(graphs[target])(IMAGES[2])
    assert sqnr(OnnxRunner(model)(IMAGES[2]), found) > (17 if target == "pow2" else 22)


@pytest.mark.parametrize("target", ["ort", "ort-avx2", "ort-arm", "qnn", "pow2"])
def test_nothing_stays_float(model: onnx.ModelProto, target: str) -> None:
    assert place(Graph(model), PROFILES[target]).kept_float == {}


@pytest.mark.parametrize("target", ["ort", "ort-avx2"])
def test_onnxruntime_computes_all_in_integers(
    graphs: dict[str, onnx.ModelProto], target: str, tmp_path: Path
) -> None:
    open_session(graphs[target], write_optimized=tmp_path / "optimized.onnx")
    counts = count_ops(onnx.load(tmp_path / "optimized.onnx"))
    assert counts["QLinearConv"] == OPERATORS["Conv"]
    assert counts["QLinearAdd"] == OPERATORS["Add"]
    assert counts["QLinearAveragePool"] == OPERATORS["AveragePool"]
    assert counts["QLinearConcat"] == 16
    assert not {"Conv", "Add", "AveragePool", "Concat", "Relu"} & counts.keys()


def test_openvino_computes_all_convolutions_in_8_bits(
    graphs: dict[str, onnx.ModelProto], tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    from deploy.runtimes.openvino import OpenVinoRunner

    onnx.save(graphs["openvino"], tmp_path / "int8.onnx")
    execution = OpenVinoRunner(tmp_path / "int8.onnx", exact=False).execution()
    assert execution.integer_convolutions == OPERATORS["Conv"]
    assert execution.float_convolutions == ()


@pytest.mark.parametrize("chip", ["sm7325", "sm8550"])  # v68 has no half precision
def test_htp_takes_it_whole(
    model: onnx.ModelProto, graphs: dict[str, onnx.ModelProto], chip: str, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime_qnn", reason="onnxruntime-qnn is not installed")
    from deploy.runtimes.qnn import QnnRunner, find_chip

    onnx.save(graphs["qnn"], tmp_path / "int8.onnx")
    runner = QnnRunner(tmp_path / "int8.onnx", find_chip(chip))
    execution = runner.execution()
    assert execution.integer_convolutions == OPERATORS["Conv"]
    assert not execution.float_convolutions
    assert not execution.float_nodes
    assert sqnr(OnnxRunner(model)(IMAGES[2]), runner(IMAGES[2])) > 22


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_ncnn_computes_the_same(
    model: onnx.ModelProto, graphs: dict[str, onnx.ModelProto], precision: str, tmp_path: Path
) -> None:
    pytest.importorskip("ncnn", reason="ncnn is not installed")
    from deploy.runtimes.ncnn import NcnnRunner

    given = graphs["ncnn"] if precision == "int8" else model
    onnx.save(given, tmp_path / "graph.onnx")
    runner = NcnnRunner(tmp_path / "graph.onnx")
    expected = OnnxRunner(model)(IMAGES[2])
    assert sqnr(expected, runner(IMAGES[2])) > (22 if precision == "int8" else 100)
    wanted = OPERATORS["Conv"] if precision == "int8" else 0
    assert runner.execution().integer_convolutions == wanted


def test_opset_11_gives_the_same_numbers(model: onnx.ModelProto) -> None:
    prove_same(model, as_opset_11(model))


def test_half_precision_takes_all_of_it(model: onnx.ModelProto) -> None:
    half = convert_fp16(Graph(model), {})
    assert half.kept_float == {}
    assert sqnr(OnnxRunner(model)(IMAGES[2]), OnnxRunner(half.model)(IMAGES[2])) > 45


def test_litert_computes_all_convolutions_in_8_bits(
    model: onnx.ModelProto, graphs: dict[str, onnx.ModelProto], tmp_path: Path
) -> None:
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
    from deploy.runtimes.litert import LiteRtRunner

    expected = OnnxRunner(model)(IMAGES[2])
    for form, least in ((model, 100), (graphs["litert"], 22)):
        onnx.save(form, tmp_path / "graph.onnx")
        runner = LiteRtRunner(tmp_path / "graph.onnx")
        assert sqnr(expected, runner(IMAGES[2])) > least
    execution = runner.execution()
    assert execution is not None
    assert execution.integer_convolutions == OPERATORS["Conv"]
    assert not execution.float_nodes
