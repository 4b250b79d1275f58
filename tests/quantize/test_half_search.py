import math

import numpy as np
import onnx
from graphs import make_model, refine_model, run
from onnx import TensorProto, helper

from deploy.graph.graph import Graph
from deploy.graph.half import emulate_half
from deploy.quantize.half_search import convert_within
from deploy.validate.metrics import logits_sqnr

IMAGE = np.random.default_rng(0).standard_normal((1, 3, 16, 16), dtype=np.float32)


def test_as_few_leading_nodes_stay_single_as_the_wanted_sqnr_takes() -> None:
    """A measure that counts the single-precision nodes finds the exact number."""
    graph = Graph(refine_model())

    def count(model: onnx.ModelProto) -> float:
        kept = [n for n in model.graph.node if n.op_type != "Cast"]
        halves = {t.name for t in model.graph.initializer if t.data_type == TensorProto.FLOAT16}
        return float(sum(not set(n.input) & halves for n in kept if n.op_type == "Conv"))

    none = convert_within(graph, {}, count, 0.0)
    assert none.half.kept_float == {}
    assert none.shortfall is None
    one = convert_within(graph, {}, count, 1.0)
    assert list(one.half.kept_float) == ["conv1"]
    assert "first nodes" in one.half.kept_float["conv1"]


def test_a_sqnr_that_no_quarter_of_the_nodes_keeps_leaves_all_in_half_and_says_so() -> None:
    tried: list[int] = []

    def never(model: onnx.ModelProto) -> float:
        tried.append(1)
        return 48.5

    found = convert_within(Graph(refine_model()), {}, never, 60.0)
    assert found.half.kept_float == {}
    assert found.sqnr_db == 48.5
    assert found.shortfall is not None
    assert found.shortfall.startswith("11.5 dB below the 60 asked")
    assert len(tried) <= 16


def test_logits_that_are_not_finite_are_said_to_be() -> None:
    found = convert_within(Graph(refine_model()), {}, lambda model: -math.inf, 60.0)
    assert found.shortfall is not None
    assert found.shortfall.startswith("a logit is not finite")


def late_cancellation() -> onnx.ModelProto:
    """Return eight harmless nodes, then four of which two cancel almost all of each other."""
    constants = {"w": np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1), "k": np.float32(1000.1)}
    nodes = [helper.make_node("Relu", ["image"], ["r0"], name="r0")]
    nodes += [
        helper.make_node("Relu", [f"r{i}"], [f"r{i + 1}"], name=f"r{i + 1}") for i in range(8)
    ]
    nodes += [
        helper.make_node("Mul", ["r8", "k"], ["large"], name="large"),
        helper.make_node("Add", ["large", "r8"], ["larger"], name="larger"),
        helper.make_node("Sub", ["larger", "large"], ["small"], name="cancel"),
        helper.make_node("Conv", ["small", "w"], ["logits"], name="conv"),
    ]
    return make_model(nodes, constants)


def test_the_nodes_that_cost_most_stay_single_wherever_they_are() -> None:
    graph = Graph(late_cancellation())
    expected = run(graph.model, IMAGE)[0]

    def sqnr(model: onnx.ModelProto) -> float:
        return float(logits_sqnr([expected], [run(emulate_half(model), IMAGE)[0]]))

    found = convert_within(graph, {}, sqnr, 55.0)
    assert found.sqnr_db >= 55
    assert {"larger", "cancel"} <= found.half.kept_float.keys()
    assert len(found.half.kept_float) <= 3
    assert "costs most" in found.half.kept_float["cancel"]
