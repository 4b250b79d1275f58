from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from graphs import quantized, refine_model, run
from onnx import numpy_helper

from deploy.calibration import RangeConfig, observe
from deploy.graph.graph import Graph, count_ops
from deploy.graph.requantized import find_overflowing, find_requantized, keep_in_float
from deploy.quantize.placement import place
from deploy.quantize.plan import plan_int8
from deploy.quantize.recipe import Levers, RecipeName, choose_recipes
from deploy.runtimes.sessions import open_session
from deploy.targets import PROFILES

R = np.random.default_rng(3)
IMAGE = R.standard_normal((1, 3, 16, 16), dtype=np.float32)
KEPT = ["conv1", "conv2", "depthwise"]  # before a Relu, a Clip, and with neither


def with_float(names: Sequence[str], target: str = "ort") -> onnx.ModelProto:
    return quantized(refine_model(), [IMAGE], target, frozenset(names))


def executed(session_of: onnx.ModelProto, tmp_path: Path) -> dict[str, int]:
    """Return the operators that run in a session as somebody else would make it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(session_of.SerializeToString(), options)
    return count_ops(onnx.load(tmp_path / "optimized.onnx"))


def convolutions(operators: dict[str, int]) -> tuple[int, int]:
    floats = sum(operators.get(name, 0) for name in ("Conv", "FusedConv", "NhwcFusedConv"))
    return operators.get("QLinearConv", 0), floats


@pytest.mark.parametrize("name", ["conv2", "depthwise"])
def test_without_it_onnxruntime_quantizes_what_was_kept_float(name: str, tmp_path: Path) -> None:
    model = with_float([name])
    assert [item.node.name for item in find_requantized(model)] == [name]
    assert convolutions(executed(model, tmp_path)) == (4, 0)


@pytest.mark.parametrize("names", [[name] for name in KEPT[1:]] + [KEPT], ids=" ".join)
@pytest.mark.parametrize("target", ["ort", "ort-avx2", "ort-arm", "qnn", "pow2"])
def test_kept_float_convolutions_run_in_float_in_anybodys_session(
    names: list[str], target: str, tmp_path: Path
) -> None:
    model = with_float(names, target)
    kept = keep_in_float(model)
    onnx.checker.check_model(kept, full_check=True)
    assert find_requantized(kept) == []
    _, floats = convolutions(executed(kept, tmp_path))
    assert floats >= len(names)
    if target in ("ort", "ort-avx2", "qnn"):
        assert convolutions(executed(kept, tmp_path)) == (4 - len(names), len(names))


@pytest.mark.parametrize("target", ["ort", "ort-arm", "pow2"])
def test_keeping_in_float_changes_no_bit(target: str) -> None:
    model = with_float(KEPT, target)
    kept = keep_in_float(model)
    assert model == with_float(KEPT, target)  # its input is as it was
    for scale in (1, 10):  # inside the calibrated range and far beyond
        image = scale * R.standard_normal((1, 3, 16, 16), dtype=np.float32)
        np.testing.assert_array_equal(run(kept, image), run(model, image))


def test_plan_writes_graphs_whose_float_layers_stay_float() -> None:
    graph = Graph(refine_model())
    placement = place(graph, PROFILES["ort"])
    statistics = observe(
        graph.model,
        {name: graph.shapes[name] for name in placement.observed},
        [IMAGE],
        non_negative=placement.non_negative,
    )
    plan = plan_int8(
        graph,
        statistics,
        [],
        config=RangeConfig(),
        profile=PROFILES["ort"],
        recipe=choose_recipes(RecipeName.PLAIN, Levers())[0],
    )
    model, _ = plan.build(["conv2"])
    assert find_requantized(model) == []
    assert "conv2/lowest" in Graph(model).constants


def test_a_graph_without_float_convolutions_stays_as_it_is() -> None:
    model = with_float([])
    assert keep_in_float(model) is model
    assert keep_in_float(refine_model()).graph == refine_model().graph


def test_an_exact_session_keeps_the_float_convolutions_of_any_graph() -> None:
    model = with_float(["conv2"])
    found = open_session(model).run(None, {"image": IMAGE})[0]
    weight = Graph(model).constants["w2"]
    rounded = np.rint(weight / (np.abs(weight).max() / 127)) * (np.abs(weight).max() / 127)
    assert np.abs(weight - rounded).max() > 0  # one scale for the weight would change it
    np.testing.assert_allclose(found, run(model, IMAGE), atol=1e-4)


def with_tiny_channel(bias: float) -> onnx.ModelProto:
    """Return a graph for OpenVINO in which one channel's weight has a tiny scale."""
    model = with_float([], "openvino")
    for tensor in model.graph.initializer:
        if tensor.name in ("conv1.weight_scale", "b1"):
            values = numpy_helper.to_array(tensor).copy()
            values[0] = 1e-10 if tensor.name != "b1" else bias
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return model


def test_an_exact_session_keeps_a_bias_that_would_overflow() -> None:
    assert find_overflowing(with_tiny_channel(0)) == []
    model = with_tiny_channel(2)
    assert find_overflowing(model) == ["conv1"]
    image = {"image": IMAGE}
    expected = run(model, IMAGE)
    np.testing.assert_allclose(open_session(model).run(None, image)[0], expected, atol=0.05)
    overflowed = open_session(model, exact=False).run(None, image)[0]
    assert np.abs(overflowed - expected).max() > 0.5
