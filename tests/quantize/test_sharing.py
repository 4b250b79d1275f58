"""The parts of a Concat have one scale, on every target, and none is clipped for it."""

import numpy as np
import onnx
import pytest
from graphs import make_model, quantized, run
from onnx import helper

from deploy.graph.graph import Graph, count_ops
from deploy.graph.qdq import QdqGraph
from deploy.quantize.placement import place
from deploy.runtimes.sessions import open_session
from deploy.targets import PROFILES, lint

node = helper.make_node
R = np.random.default_rng(0)
IMAGES = [R.standard_normal((1, 3, 16, 16), dtype=np.float32) for _ in range(4)]
ORT, POW2 = PROFILES["ort"], PROFILES["pow2"]
SAME = {"kernel_shape": [3, 3], "pads": [1] * 4}


def weight(outputs: int, inputs: int, scale: float = 1.0) -> np.ndarray:
    return scale * R.standard_normal((outputs, inputs, 1, 1), dtype=np.float32)


def branches() -> onnx.ModelProto:
    """Return a narrow and a wide part, one pooled, joined twice: as NASNet's cells are."""
    nodes = [
        node("Conv", ["image", "narrow"], ["a"], name="conv_a"),
        node("Conv", ["image", "wide"], ["b"], name="conv_b"),
        node("AveragePool", ["b"], ["m"], name="mean", count_include_pad=0, **SAME),
        node("Add", ["m", "m"], ["s"], name="twice"),
        node("Concat", ["a", "s", "b"], ["joined"], name="concat", axis=1),
        node("Conv", ["joined", "head"], ["h"], name="conv_h"),
        node("Concat", ["h", "joined"], ["last"], name="concat_again", axis=1),
        node("Conv", ["last", "classifier"], ["logits"], name="classifier"),
    ]
    constants = {
        "narrow": weight(3, 3, 0.2),
        "wide": weight(3, 3),
        "head": weight(3, 9),
        "classifier": weight(4, 12),
    }
    return make_model(nodes, constants)


def pooled_part(*, needed: bool) -> onnx.ModelProto:
    """Return a Concat of a max-pooled part; ``needed``: another node takes what is pooled."""
    nodes = [
        node("Conv", ["image", "w"], ["a"], name="conv_a"),
        node("MaxPool", ["a"], ["p"], name="pool", **SAME),
        node("Conv", ["image", "w2"], ["b"], name="conv_b"),
        node("Concat", ["p", "b"], ["joined"], name="concat", axis=1),
        node("Conv", ["joined", "head"], ["h"], name="conv_h"),
        node("Add", ["h", "a" if needed else "b"], ["logits"], name="add"),
    ]
    return make_model(nodes, {"w": weight(3, 3), "w2": weight(3, 3), "head": weight(3, 6)})


def test_parts_take_the_scale_of_the_last_concat_that_holds_them() -> None:
    placement = place(Graph(branches()), ORT)
    parts = ("a", "b", "s", "joined", "h", "last")
    assert {placement.scale_of[name] for name in parts} == {"last"}
    assert placement.scale_of["m"] == "m"
    assert placement.kept_float == {}


def test_mean_takes_the_scale_of_what_it_is_of_where_the_target_demands_it() -> None:
    scale_of = place(Graph(branches()), POW2).scale_of
    assert scale_of["m"] == scale_of["b"] == "last"


def test_part_that_is_pooled_takes_the_concats_scale_with_its_source() -> None:
    placement = place(Graph(pooled_part(needed=False)), ORT)
    assert {placement.scale_of[name] for name in ("a", "p", "b", "joined")} == {"joined"}
    assert "concat" in placement.nodes


def test_concat_of_a_part_whose_source_others_take_stays_float() -> None:
    placement = place(Graph(pooled_part(needed=True)), ORT)
    assert placement.scale_of["p"] == placement.scale_of["a"] == "a"
    assert placement.kept_float == {"concat": "its part p has the scale of what others take, too"}


def test_concat_of_parts_of_another_concat_stays_float() -> None:
    nodes = [
        node("Conv", ["image", "w"], ["a"], name="conv_a"),
        node("Conv", ["image", "w"], ["b"], name="conv_b"),
        node("Concat", ["a", "b"], ["ab"], name="first", axis=1),
        node("Concat", ["b", "a"], ["ba"], name="second", axis=1),
        node("Conv", ["ab", "head"], ["h"], name="conv_h"),
        node("Conv", ["ba", "head"], ["k"], name="conv_k"),
        node("Add", ["h", "k"], ["logits"], name="add"),
    ]
    model = make_model(nodes, {"w": weight(3, 3), "head": weight(3, 6)})
    placement = place(Graph(model), ORT)
    assert placement.scale_of["a"] == placement.scale_of["b"] == "ab"
    assert list(placement.kept_float) == ["second"]


@pytest.mark.parametrize("target", PROFILES)
@pytest.mark.parametrize("model", [branches(), pooled_part(needed=False), pooled_part(needed=True)])
def test_every_targets_graph_is_clean_and_near(model: onnx.ModelProto, target: str) -> None:
    made = quantized(model, IMAGES, target)
    onnx.checker.check_model(made, full_check=True)
    kept = place(Graph(model), PROFILES[target]).kept_float
    assert [f for f in lint(made, target) if f.node not in kept] == []
    expected = np.concatenate([run(model, image) for image in IMAGES])
    error = expected - np.concatenate([run(made, image) for image in IMAGES])
    sqnr = 10 * np.log10(np.square(expected).sum() / np.square(error).sum())
    assert sqnr > (18 if target == "pow2" else 25)


@pytest.mark.parametrize("target", [name for name in PROFILES if name != "ncnn"])
def test_inputs_of_a_concat_are_dequantized_alike(target: str) -> None:
    graph = QdqGraph.of(quantized(branches(), IMAGES, target))
    for concat in (n for n in graph.model.graph.node if n.op_type == "Concat"):
        first, *others = (graph.dequantized(name) for name in concat.input)
        assert first is not None
        assert all(other is not None and other.same_as(first) for other in others)


def test_every_profile_observes_what_the_default_one_does() -> None:
    for model in (branches(), pooled_part(needed=False), pooled_part(needed=True)):
        graph = Graph(model)
        everything = set(place(graph, ORT).observed)
        for profile in PROFILES.values():
            names = place(graph, profile).nodes
            for exclude in ([], *([name] for name in names), names[1:]):
                assert set(place(graph, profile, exclude).observed) <= everything


def test_onnxruntime_computes_all_of_it_in_integers(tmp_path: object) -> None:
    path = f"{tmp_path}/optimized.onnx"
    open_session(quantized(branches(), IMAGES), write_optimized=path)  # type: ignore[arg-type]
    counts = count_ops(onnx.load(path))
    assert {name: counts[name] for name in counts if name.startswith("QLinear")} == {
        "QLinearConv": 4,
        "QLinearConcat": 2,
        "QLinearAveragePool": 1,
        "QLinearAdd": 1,
    }
    assert not {"Conv", "Concat", "AveragePool", "Add"} & counts.keys()


def test_lint_names_a_mean_of_another_scale_and_unlike_parts() -> None:
    of_ort = quantized(branches(), IMAGES)
    found = {(f.rule, f.node) for f in lint(of_ort, "pow2")}
    assert ("changed-scale", "mean") in found
    graph = of_ort.graph
    a = next(n for n in graph.node if n.name == "a_dequantized/DequantizeLinear")
    graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0.5), "other"))
    a.input[1] = "other"
    for target in ("openvino", "pow2"):
        assert ("concat-scale", "concat") in {(f.rule, f.node) for f in lint(of_ort, target)}
