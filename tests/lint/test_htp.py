"""The rules of Qualcomm's HTP against HTP itself: what lint passes it prepares, and no less."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from graphs import quantized, refine_model, relu_beside_sum_model, residual_model, run
from htp import Job, run_on_htp
from numpy.typing import NDArray
from qdq_graphs import MIDDLE, SIDE, QdqGraph

from deploy.calibration.preprocess import normalize
from deploy.errors import DeployError
from deploy.export.heads import run as run_cpu
from deploy.export.heads import wrap
from deploy.export.interface import Head, Interface
from deploy.graph.metadata import set_metadata
from deploy.quantize.rewrite import rewrite
from deploy.targets import ACCELERATORS, PROFILES, lint
from deploy.targets.qnn import CHIPS, DEFAULT_CHIP

HALF, NO_HALF = DEFAULT_CHIP, "sm7325"
DRAWN = 60
IMAGE = np.random.default_rng(7).standard_normal((1, 4, SIDE, SIDE), dtype=np.float32)
# What these name is taken by every chip, but computed wrong or with other weights than meant.
NOT_REFUSED = {"bias-range", "float-weight"}


def rules(model: onnx.ModelProto, chip: str) -> set[str]:
    return {finding.rule for finding in lint(model, "qnn", chip)}


def on_chip(models: list[onnx.ModelProto], chip: str) -> list[NDArray[Any] | None]:
    return run_on_htp([Job(model, IMAGE) for model in models], CHIPS[chip].soc_model)


def noise_db(expected: NDArray[Any], found: NDArray[Any]) -> float:
    error = np.square(expected - found, dtype=np.float64).sum()
    return float(10 * np.log10(np.square(expected, dtype=np.float64).sum() / max(error, 1e-30)))


def draw(seed: int) -> onnx.ModelProto:
    """Return a convolution, an operator and a convolution, often with one thing wrong."""
    random = np.random.default_rng(seed)

    def pick(usual: str, *others: str) -> str:
        return str(random.choice(others)) if random.random() < 0.2 else usual

    dtype = str(random.choice(["uint8", "int8", "uint16"]))
    graph = QdqGraph(random, dtype)
    step = 0.05 if "16" not in dtype else 0.05 / 256
    low = int(np.iinfo(dtype).min)
    conv = graph.conv(
        "image" if random.random() < 0.05 else graph.image(),
        per_channel=bool(random.random() < 0.7),
        weight=(weight := pick("int8", "uint8")),
        zero_point=int(pick("128" if weight == "uint8" else "0", "5")),
        bias=pick("int32", "none", "float", "other-scale", "int8"),
        kernel=int(random.choice([1, 3])),
        stride=int(random.choice([1, 2])) if random.random() < 0.2 else 1,
        depthwise=bool(random.random() < 0.3),
    )
    activation = pick("none", "absorbed", "left-over")
    x = graph.add("Relu", [conv]) if activation != "none" else conv
    zero_point = low if activation == "absorbed" else MIDDLE[dtype]
    placed = pick("between", "float-result", "twice", "bare", "other-type", "float")
    operators = ["MaxPool", "Resize", "Align", "Concat", "Add", "AveragePool", "Slice", "Pad"]
    operator = str(random.choice(operators))
    if placed == "bare":
        q = graph.quantize(x, step, zero_point)
        operator = "Slice" if operator in ("Add", "AveragePool", "Align", "Pad") else operator
        x = graph.dequantize(graph.between(operator, q), step, zero_point)
    elif placed == "float":
        x = graph.between(operator, x)
    else:
        before = graph.qdq(x, step, zero_point)
        x = graph.between(operator, before)
        if placed == "float-result":
            x = graph.add("Sigmoid", [x])
        elif placed == "twice":
            x = graph.add("Add", [graph.qdq(x, step, zero_point), graph.qdq(x, 2 * step)])
    given = "int8" if placed == "other-type" and dtype == "uint8" else None
    scale = step * float(pick("1", "1.5"))
    x = graph.qdq(x, scale, None if given else zero_point, given)
    graph.dtype = given or dtype
    graph.finish(graph.conv(x, scale=scale))
    return graph.model()


@pytest.mark.slow
def test_any_graph_that_lint_passes_is_prepared_and_computed_by_htp() -> None:
    models = [draw(seed) for seed in range(DRAWN)]
    seen = Counter[tuple[str, bool]]()
    for chip in (HALF, NO_HALF):
        for seed, (model, found) in enumerate(zip(models, on_chip(models, chip), strict=True)):
            broken = rules(model, chip)
            assert broken or found is not None, f"{chip} refuses graph {seed}, which lint passes"
            if found is not None and not broken:
                assert noise_db(run(model, IMAGE), found) > 20, (chip, seed)
            if chip == NO_HALF and broken - NOT_REFUSED:
                assert found is None, f"{chip} takes graph {seed}, where lint finds {broken}"
            seen[chip, found is not None] += 1
    assert min(seen[chip, taken] for chip in (HALF, NO_HALF) for taken in (True, False)) > 10


@dataclass(frozen=True)
class Case:
    """A graph with something to tell of it."""

    build: Callable[[QdqGraph], None]
    rule: str | None  # that it breaks
    half: bool  # whether a chip with half precision takes it
    no_half: bool
    soc_only: bool = False  # only where a chip without half precision is named
    dtype: str = "uint8"
    height: int | str = SIDE


def conv(**given: Any) -> Callable[[QdqGraph], None]:
    return lambda g: g.finish(g.conv(g.image(), **given))


def between(op_type: str, scale: float = 0.05, zero_point: int = 128) -> Callable[[QdqGraph], None]:
    def build(g: QdqGraph) -> None:
        x = g.qdq(g.between(op_type, g.qdq(g.conv(g.image()), 0.05)), scale, zero_point)
        g.finish(g.conv(x, scale=scale))

    return build


def bare(op_type: str) -> Callable[[QdqGraph], None]:
    def build(g: QdqGraph) -> None:
        q = g.quantize(g.conv(g.image()), 0.05)
        if op_type == "Transpose":
            q = g.add(op_type, [q], perm=[0, 1, 3, 2])
        elif op_type == "Pad":
            pads = g.const([0, 0, 1, 1, 0, 0, 1, 1], np.int64)
            q = g.add(op_type, [q, pads, g.const(128, np.uint8)])
        else:
            q = g.between(op_type, q)
        g.finish(g.conv(g.dequantize(q, 0.05), scale=0.05))

    return build


def clip(low: float, high: float, scale: float, zero_point: int) -> Callable[[QdqGraph], None]:
    def build(g: QdqGraph) -> None:
        x = g.add("Clip", [g.conv(g.image()), g.const(low), g.const(high)])
        g.finish(g.conv(g.qdq(x, scale, zero_point), scale=scale))

    return build


def in_float(op_type: str) -> Callable[[QdqGraph], None]:
    def build(g: QdqGraph) -> None:
        x = g.between(op_type, g.qdq(g.conv(g.image()), 0.05))
        g.qdq(g.add("Sigmoid", [x]), 1 / 255, 0, out="logits")

    return build


def clip_alone(g: QdqGraph) -> None:
    x = g.add("Clip", [g.qdq(g.conv(g.image()), 0.05), g.const(-1), g.const(2)])
    g.finish(g.conv(g.qdq(x, 0.02), scale=0.02))


def result_twice(g: QdqGraph) -> None:
    x = g.conv(g.image())
    g.finish(g.add("Add", [g.qdq(x, 0.05), g.qdq(x, 0.06)]))


def add_constant(g: QdqGraph) -> None:
    x = g.qdq(g.conv(g.image()), 0.05)
    g.finish(g.add("Add", [x, g.const(np.ones((1, 4, 1, 1)))]))


def pool_carries(g: QdqGraph) -> None:
    g.finish(g.conv(g.qdq(g.between("MaxPool", g.conv(g.image())), 0.05), scale=0.05))


def per_channel_activation(g: QdqGraph) -> None:
    scales = np.full(4, 0.05)
    q = g.add("QuantizeLinear", ["image", *g.affine(scales, None, None)], axis=1)
    g.finish(g.conv(g.dequantize(q, scales, axis=1)))


def two_types(g: QdqGraph) -> None:
    g.finish(g.conv(g.image()), dtype="int8")


def float_input(g: QdqGraph) -> None:
    g.finish(g.conv("image"))


def float_output(g: QdqGraph) -> None:
    g.conv(g.image(), out="logits")


CASES = {
    "int8 activations": Case(conv(), None, True, True, dtype="int8"),
    "uint16 activations": Case(conv(), None, True, True, dtype="uint16"),
    "int16 activations": Case(conv(), None, True, True, dtype="int16"),
    "uint8 weights": Case(conv(weight="uint8", zero_point=128), None, True, True),
    "uint8 weights, zero points 0": Case(conv(weight="uint8"), "weight-type", False, False),
    "uint8 weights, int8 activations": Case(
        conv(weight="uint8", zero_point=128), "weight-type", False, False, dtype="int8"
    ),
    "zero points of channels": Case(conv(zero_point=5), "weight-type", False, False),
    "zero point": Case(conv(zero_point=5, per_channel=False), None, True, True),
    "int16 weights": Case(conv(weight="int16"), "weight-type", False, False),
    "no bias": Case(conv(bias="none"), None, True, True),
    "float bias": Case(conv(bias="float"), None, True, True),
    "other bias scale": Case(conv(bias="other-scale"), None, True, True),
    "int8 bias": Case(conv(bias="int8"), "bias-form", False, False),
    "int8 bias per tensor": Case(conv(bias="int8", per_channel=False), "bias-form", True, False),
    "activation scales": Case(per_channel_activation, "activation-scales", False, False),
    "two types": Case(two_types, "mixed-types", False, False),
    "float input": Case(float_input, "float-input", False, False),
    "float output": Case(float_output, "float-result", False, False),
    "result twice": Case(result_twice, "float-result", False, False),
    "constant in float": Case(add_constant, "float-input", True, False),
    "max-pooling carries Q": Case(pool_carries, None, True, True),
    "pooled to another scale": Case(between("MaxPool", 0.06), "changed-scale", True, False),
    "pooled to another zero point": Case(between("MaxPool", 0.05, 120), None, True, True),
    "resized to another scale": Case(between("Resize", 0.06), "changed-scale", True, False),
    "averaged to another scale": Case(between("AveragePool", 0.06), None, True, True),
    "bare Slice": Case(bare("Slice"), "integer-operator", False, False),
    "bare Pad": Case(bare("Pad"), "integer-operator", False, False),
    "bare MaxPool": Case(bare("MaxPool"), "integer-operator", False, False),
    "bare Transpose": Case(bare("Transpose"), None, True, True),
    "Clip that is absorbed": Case(clip(-1, 2, 3 / 255, 85), None, True, True),
    "Clip that is not": Case(clip(-1, 2, 0.05, 128), "separate-activation", False, False),
    "Clip between Q/DQ": Case(clip_alone, None, True, True),
    "float Resize": Case(in_float("Resize"), "float-result", True, False),
    "float Tanh": Case(in_float("Tanh"), "float-operator", True, False, True),
    "free size": Case(conv(), "fixed-shape", False, False, height="height"),
}


def built(case: Case) -> onnx.ModelProto:
    graph = QdqGraph(np.random.default_rng(0), case.dtype)
    case.build(graph)
    return graph.model(case.height)


@pytest.mark.parametrize("name", CASES)
def test_lint_names_what_htp_refuses_or_computes_in_float(name: str) -> None:
    case = CASES[name]
    expected = set() if case.rule is None else {case.rule}
    assert rules(built(case), HALF) == (set() if case.soc_only else expected)
    assert rules(built(case), NO_HALF) >= expected
    assert bool(expected) is not case.no_half


@pytest.mark.parametrize("chip", [HALF, NO_HALF, "sm8750"])
def test_htp_takes_and_refuses_what_the_cases_say(chip: str) -> None:
    found = on_chip([built(case) for case in CASES.values()], chip)
    taken = {name for name, output in zip(CASES, found, strict=True) if output is not None}
    has_half = CHIPS[chip].has_half
    assert taken == {n for n, case in CASES.items() if (case.half if has_half else case.no_half)}
    for (name, case), output in zip(CASES.items(), found, strict=True):
        assert output is None or noise_db(run(built(case), IMAGE), output) > 25, name


def test_lint_one_scale_for_a_bias_where_the_weight_has_many_is_computed_wrong() -> None:
    model = built(Case(conv(bias="one-scale"), None, True, True))
    assert rules(model, HALF) == {"bias-form"}
    (output,) = on_chip([model], HALF)
    assert output is not None
    assert noise_db(run(model, IMAGE), output) < 20


def test_lint_conv_kept_float_whose_weight_is_dequantized_is_refused() -> None:
    model = built(CASES["float output"])
    set_metadata(model, {"kept_float": '["conv4"]'})
    assert rules(model, HALF) == {"dequantized-weight"}
    assert on_chip([model], HALF) == [None]


def test_lint_rewrites_for_onnxruntime_are_refused_by_htp() -> None:
    picture = np.random.default_rng(0).standard_normal((1, 3, 16, 16), dtype=np.float32)
    model = rewrite(quantized(refine_model(), [picture]), PROFILES["ort"])
    found = [f for f in lint(model, "qnn") if f.rule == "integer-operator"]
    assert {f.problem.split()[1] for f in found} == {"Pad", "Slice"}
    assert run_on_htp([Job(model, picture)], CHIPS[HALF].soc_model) == [None]


NETWORKS = (refine_model, residual_model, relu_beside_sum_model)


def test_htp_takes_graphs_for_any_target_if_lint_passes_them() -> None:
    images = [np.random.default_rng(i).standard_normal((1, 3, 16, 16)) for i in range(3)]
    floats = [image.astype(np.float32) for image in images]
    models = [quantized(build(), floats, target) for target in PROFILES for build in NETWORKS]
    passed = [model for model in models if not lint(model, "qnn", NO_HALF)]
    assert len(passed) > 12
    for chip in (HALF, NO_HALF):
        outputs = run_on_htp([Job(m, floats[0]) for m in passed], CHIPS[chip].soc_model)
        for model, output in zip(passed, outputs, strict=True):
            assert output is not None
            assert noise_db(run(model, floats[0]), output) > 25


@pytest.mark.parametrize("head", Head)
def test_htp_takes_bytes_and_gives_what_a_head_should(head: Head) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), dtype=np.uint8)
    model = quantized(refine_model(), [normalize(picture[0])], "qnn")
    set_metadata(model, {"precision": "int8", "target": "qnn"})
    wrapped = wrap(model, Interface(head=head, embed_preprocessing=True))
    assert rules(wrapped, HALF) == set()
    assert rules(wrapped, NO_HALF) == {"float-operator"}
    (expected,) = run_cpu(wrapped, picture)
    (found,) = run_on_htp([Job(wrapped, picture)], CHIPS[HALF].soc_model)
    assert found is not None
    if head is Head.LABELS:
        assert (found == expected).mean() > 0.98
    else:
        assert noise_db(expected, found) > 25
    assert run_on_htp([Job(wrapped, picture)], CHIPS[NO_HALF].soc_model) == [None]


def test_htp_computes_floats_on_the_chips_that_say_so() -> None:
    model = built(CASES["float Tanh"])
    one_of_each = {(chip.arch, chip.has_half): chip for chip in CHIPS.values()}
    for chip in one_of_each.values():
        (output,) = on_chip([model], chip.name)
        assert (output is not None) is chip.has_half, chip.name


def test_lint_unknown_chip_is_refused() -> None:
    with pytest.raises(
        DeployError, match=r"target qnn has no chip 'sm1': choose one of sm8350, sm7325, .*"
    ):
        lint(built(CASES["no bias"]), "qnn", "sm1")
    with pytest.raises(DeployError, match=r"target ort has no chip 'sm8550': leave --soc out"):
        lint(built(CASES["no bias"]), "ort", "sm8550")
    assert set(ACCELERATORS["qnn"].chips) == set(CHIPS)
