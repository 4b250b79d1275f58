"""Graphs of other exporters, through the whole quantization: every target, the linter, half."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import run_main
from exporters import ACCEPTED, auto_padded, base, bias_as_sum, build, labelled, normalized, twice
from graphs import run

import deploy
from deploy.calibration import Fit
from deploy.calibration.preprocess import preprocess
from deploy.calibration.scenes import write_scenes
from deploy.calibration.voc import read_image, read_split
from deploy.errors import GraphError
from deploy.graph.canonical import canonical
from deploy.graph.graph import Graph, count_ops
from deploy.graph.half import emulate_half
from deploy.graph.reading import read_graph
from deploy.quantize.recipe import RecipeName
from deploy.runtimes.sessions import open_session
from deploy.targets import PROFILES, lint

SIZE = (64, 64)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("exporters"), train=3, val=2, seed=9)


def images(scenes: Path) -> list[np.ndarray]:
    return [preprocess(read_image(s.image), Fit.CROP, SIZE) for s in read_split(scenes, "train")]


def quantize(path: Path, scenes: Path, target: str, *, fp16: bool) -> list[deploy.quantize]:
    return deploy.quantize(
        path,
        fp16=fp16,
        target=target,
        recipe=RecipeName.PLAIN,
        images=3,
        voc_root=scenes,
        out=path.parent / "out",
    )


def sqnr(path: Path, model: onnx.ModelProto, shown: list[np.ndarray]) -> float:
    expected = np.stack([run(onnx.load(path), image) for image in shown])
    found = np.stack([run(model, image) for image in shown])
    return float(10 * np.log10(np.square(expected).sum() / np.square(expected - found).sum()))


@pytest.mark.parametrize("name", ACCEPTED)
def test_graph_is_quantized_like_any_other(name: str, scenes: Path, tmp_path: Path) -> None:
    path = tmp_path / "theirs.onnx"
    onnx.save(ACCEPTED[name](), path)
    shown = images(scenes)
    for target in PROFILES:
        for written in quantize(path, scenes, target, fp16=target == "ort"):
            model = onnx.load(written.path)
            onnx.checker.check_model(model, full_check=True)
            assert len(model.graph.input) == 1
            if written.precision == "fp16":
                assert sqnr(path, emulate_half(model), shown) > 60
                continue
            assert lint(model, target) == []
            assert sqnr(path, model, shown) > (17 if target == "pow2" else 22)
            unexplained = [n for n in written.kept_float if n.startswith(("conv", "head"))]
            assert unexplained == []  # a convolution computes in 8 bits, whoever wrote it
            open_session(model)


@pytest.mark.parametrize("shape", [(1, 32, 1, 1), (32, 1, 1), (1,), ()], ids=str)
@pytest.mark.parametrize("own", [False, True])
def test_canonical_adds_biases_to_convolutions(shape: tuple[int, ...], own: bool) -> None:
    model = bias_as_sum(shape, own=own)
    made = canonical(model)
    assert count_ops(made).get("Add", 0) == count_ops(model)["Add"] - 1
    image = np.random.default_rng(0).standard_normal((1, 3, *SIZE), dtype=np.float32)
    np.testing.assert_allclose(run(made, image), run(model, image), atol=1e-4)


@pytest.mark.parametrize("name", ACCEPTED)
def test_canonical_changes_no_result_and_not_its_input(name: str) -> None:
    model = ACCEPTED[name]()
    before = model.SerializeToString(deterministic=True)
    made = canonical(model)
    assert model.SerializeToString(deterministic=True) == before
    onnx.checker.check_model(made, full_check=True)
    assert not {"Constant", "Identity"} & count_ops(made).keys()
    assert canonical(made) is made
    image = np.random.default_rng(0).standard_normal((1, 3, *SIZE), dtype=np.float32)
    np.testing.assert_allclose(run(made, image), run(model, image), atol=1e-4)


@pytest.mark.parametrize("size", [63, 64])
@pytest.mark.parametrize("rule", ["SAME_UPPER", "SAME_LOWER"])
def test_canonical_pads_as_the_rule_does(rule: str, size: int) -> None:
    model = auto_padded(rule)
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = size
    made = canonical(model)
    assert not [a for n in made.graph.node for a in n.attribute if a.name == "auto_pad"]
    image = np.random.default_rng(0).standard_normal((1, 3, size, size), dtype=np.float32)
    np.testing.assert_array_equal(run(made, image), run(model, image))


def test_simplify_helps_with_paddings_and_biases(tmp_path: Path) -> None:
    onnx.save(auto_padded("SAME_UPPER"), tmp_path / "padded.onnx")
    made = deploy.simplify(tmp_path / "padded.onnx").model
    assert not [a for n in made.graph.node for a in n.attribute if a.name == "auto_pad"]


def test_sum_of_one_tensor_runs_in_8_bits(scenes: Path, tmp_path: Path) -> None:
    onnx.save(twice(), tmp_path / "twice.onnx")
    (written,) = quantize(tmp_path / "twice.onnx", scenes, "ort", fp16=False)
    session = tmp_path / "optimized.onnx"
    open_session(onnx.load(written.path), write_optimized=session)
    assert count_ops(onnx.load(session))["QLinearAdd"] == 1
    assert written.kept_float == {}


def test_graph_that_gives_labels_is_one_line(scenes: Path, tmp_path: Path) -> None:
    onnx.save(labelled(), tmp_path / "labels.onnx")
    for call in (
        lambda: quantize(tmp_path / "labels.onnx", scenes, "ort", fp16=True),
        lambda: deploy.validate(tmp_path / "labels.onnx", voc_root=scenes),
    ):
        with pytest.raises(GraphError, match=r"labels\.onnx: .*it gives labels: pass the graph"):
            call()


def test_epsilon_that_a_half_cannot_hold_stays_single(scenes: Path, tmp_path: Path) -> None:
    onnx.save(normalized(1e-9, factor=1), tmp_path / "tiny.onnx")
    written, *_ = quantize(tmp_path / "tiny.onnx", scenes, "ort", fp16=True)
    assert "which a half cannot tell from 0" in written.kept_float["plus_epsilon"]
    assert "square" not in written.kept_float
    assert written.sqnr_db is not None
    assert written.shortfall is None


def test_what_was_not_measured_stays_single(scenes: Path, tmp_path: Path) -> None:
    path = tmp_path / "theirs.onnx"
    onnx.save(normalized(), path)
    statistics = deploy.calibrate(path, images=3, voc_root=scenes, out=tmp_path / "out").path
    half, _ = deploy.quantize(path, calibration=statistics, recipe="plain", out=tmp_path / "other")
    assert "was not measured" in half.kept_float["square"]
    assert "conv1" not in half.kept_float


def test_sqnr_that_is_missed_is_told_and_exit_code_3_where_it_was_asked(
    scenes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "theirs.onnx"
    onnx.save(ACCEPTED["base"](), path)
    arguments = ["quantize", str(path), "--fp16", "--images", "3", "--voc-root", str(scenes)]
    arguments += ["--out", str(tmp_path / "out"), "-q"]
    code, out, _ = run_main([*arguments, "--fp16-sqnr", "140"], monkeypatch, capsys)
    assert code == 3
    assert "below the 140 asked" in out
    assert run_main(arguments, monkeypatch, capsys)[0] == 0


def test_simplify_result_equals_graph_for_constants(tmp_path: Path) -> None:
    onnx.save(ACCEPTED["constant-nodes"](), tmp_path / "nodes.onnx")
    made = deploy.simplify(tmp_path / "nodes.onnx").model
    assert "w1" in Graph(made).constants


def test_words_of_another_tool_in_the_metadata_mean_nothing_here(
    scenes: Path, tmp_path: Path
) -> None:
    model = ACCEPTED["base"]()
    for key, value in {"fit": "contain", "head": "yolo", "quantization": "none"}.items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, tmp_path / "theirs.onnx")
    (written,) = quantize(tmp_path / "theirs.onnx", scenes, "ort", fp16=False)
    assert lint(onnx.load(written.path), "ort") == []
    assert deploy.validate(tmp_path / "theirs.onnx", voc_root=scenes)[0]["dataset"]["images"] == 2


def test_a_mask_of_infinities_is_no_broken_export(tmp_path: Path) -> None:
    nodes, constants = base()
    masked = np.where(np.eye(32) > 0, 0, -np.inf).astype(np.float32).reshape(1, 1, 32, 32)
    constants["mask"] = masked
    onnx.save(build(nodes, constants), tmp_path / "mask.onnx")
    assert read_graph(tmp_path / "mask.onnx").graph.node
    constants["w3"] = np.where(constants["w3"] > 0, np.inf, constants["w3"])
    onnx.save(build(nodes, constants), tmp_path / "broken.onnx")
    with pytest.raises(GraphError, match=r"broken\.onnx has NaN or infinite values in 'w3'"):
        read_graph(tmp_path / "broken.onnx")
