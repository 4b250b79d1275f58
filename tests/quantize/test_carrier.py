import numpy as np
import onnx
import pytest
from graphs import refine_model, run

from deploy.calibration import RangeConfig
from deploy.calibration.observe import observe
from deploy.graph.graph import Graph
from deploy.quantize.carrier import Carrier
from deploy.quantize.int8 import bias_of, quantize_int8
from deploy.quantize.placement import place
from deploy.quantize.plan import Int8Plan, plan_int8
from deploy.quantize.recipe import RECIPES, RecipeName
from deploy.targets import DEFAULT_TARGET, PROFILES

PROFILE = PROFILES[DEFAULT_TARGET]


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.normal(size=(1, 3, 16, 16)).astype(np.float32) for _ in range(4)]


@pytest.fixture(scope="module")
def plan(images: list[np.ndarray]) -> Int8Plan:
    graph = Graph(refine_model())
    placement = place(graph, PROFILE)
    statistics = observe(
        graph.model,
        {name: graph.shapes[name] for name in placement.observed},
        iter(images),
        non_negative=placement.non_negative,
    )
    return plan_int8(
        graph,
        statistics,
        images,
        config=RangeConfig(),
        profile=PROFILE,
        recipe=RECIPES[RecipeName.FAST],
    )


@pytest.fixture(scope="module")
def carrier(plan: Int8Plan) -> Carrier:
    return plan.carrier()


def convolutions(graph: Graph) -> list[onnx.NodeProto]:
    return [node for node in graph.model.graph.node if node.op_type == "Conv"]


def test_weights_are_the_integers_times_their_scales(plan: Int8Plan, carrier: Carrier) -> None:
    for node in convolutions(carrier.graph):
        q, scale = plan.improved.weights[node.name]
        values = carrier.graph.constants[node.input[1]]
        assert (values == q.astype(np.float32) * scale.reshape(-1, 1, 1, 1)).all()
        assert (np.rint(values / scale.reshape(-1, 1, 1, 1)) == q).all()


def test_biases_are_the_corrected_ones(plan: Int8Plan, carrier: Carrier) -> None:
    assert plan.improved.biases
    for node in convolutions(carrier.graph):
        assert (bias_of(carrier.graph, node) == plan.improved.biases[node.name]).all()


def test_it_makes_the_very_qdq_graph(plan: Int8Plan, carrier: Carrier) -> None:
    image = np.random.default_rng(9).normal(size=(1, 3, 16, 16)).astype(np.float32)
    placement, ranges = carrier.placement, carrier.ranges
    made = quantize_int8(carrier.graph, placement, ranges, PROFILE, carrier.weights)
    expected, _ = plan.build()
    assert (run(made, image) == run(expected, image)).all()


def test_every_tensor_has_a_range(carrier: Carrier) -> None:
    made = {name for node in carrier.graph.model.graph.node for name in node.output}
    assert made | {carrier.graph.input.name} == carrier.ranges.keys()
    assert all(low <= 0 <= high for low, high in carrier.ranges.values())


def test_what_stays_float_keeps_its_weight_and_bias(plan: Int8Plan) -> None:
    name = convolutions(plan.graph)[1].name
    carried = plan.carrier({name})
    before, after = (
        next(n for n in convolutions(g) if n.name == name) for g in (plan.graph, carried.graph)
    )
    assert after.input == before.input
    assert name not in carried.weights


def test_it_computes_nearly_what_the_float_graph_does(
    plan: Int8Plan, carrier: Carrier, images: list[np.ndarray]
) -> None:
    expected, found = (run(graph.model, images[0]) for graph in (plan.graph, carrier.graph))
    noise = np.square(expected - found).mean() / np.square(expected).mean()
    assert 0 < noise < 1e-3
