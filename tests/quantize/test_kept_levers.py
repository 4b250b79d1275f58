from pathlib import Path

import numpy as np
import pytest
from graphs import refine_model

from deploy.graph.graph import Graph
from deploy.quantize import kept_levers
from deploy.quantize.int8 import QuantizedWeight, nearest_weights
from deploy.quantize.kept_levers import LeversFolder
from deploy.quantize.placement import place
from deploy.quantize.recipe import Rounding
from deploy.quantize.weights import ImprovedWeights
from deploy.targets import PROFILES

GRAPH = Graph(refine_model())
SETTINGS = {
    "method": Rounding.SECOND_ORDER,
    "correct_biases": True,
    "weight_max": 127,
    "largest": 1024,
}
Weights = dict[str, QuantizedWeight]


@pytest.fixture
def images() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.normal(size=(1, 3, 16, 16)).astype(np.float32) for _ in range(3)]


@pytest.fixture
def pulls(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Count how often the levers are pulled."""
    calls: list[object] = []
    real = kept_levers.improve_weights

    def counted(*arguments: object, **settings: object) -> ImprovedWeights:
        calls.append(arguments)
        return real(*arguments, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(kept_levers, "improve_weights", counted)
    return calls


def weights_for(target: str) -> Weights:
    profile = PROFILES[target]
    placement = place(GRAPH, profile)
    ranges = dict.fromkeys(placement.observed, (-1.0, 2.0))
    return nearest_weights(GRAPH, placement, ranges, profile)


def improve(
    folder: Path, target: str, images: list[np.ndarray], *, force: bool = False, **changed: object
) -> ImprovedWeights:
    levers = LeversFolder(folder, PROFILES[target], force=force)
    return levers.improve(GRAPH, weights_for(target), images, **{**SETTINGS, **changed})


def assert_same(one: ImprovedWeights, other: ImprovedWeights) -> None:
    assert one.gain_db == other.gain_db
    assert one.weights.keys() == other.weights.keys()
    for name, weight in one.weights.items():
        assert weight.q.dtype == other.weights[name].q.dtype
        assert (weight.q == other.weights[name].q).all()
        assert (weight.scale == other.weights[name].scale).all()
    assert one.biases.keys() == other.biases.keys()
    assert all((bias == other.biases[name]).all() for name, bias in one.biases.items())


@pytest.mark.parametrize("target", ["qnn", "ort-arm", "tensorrt", "openvino"])
def test_targets_that_round_alike_share_them(
    target: str, tmp_path: Path, images: list[np.ndarray], pulls: list[object]
) -> None:
    first = improve(tmp_path, "ort", images)
    assert_same(first, improve(tmp_path, target, images))
    assert len(pulls) == 1


@pytest.mark.parametrize("target", ["ort-avx2", "pow2"])
def test_another_grid_has_its_own(
    target: str, tmp_path: Path, images: list[np.ndarray], pulls: list[object]
) -> None:
    improve(tmp_path, "ort", images)
    improve(tmp_path, target, images, weight_max=PROFILES[target].weight_max)
    assert len(pulls) == 2
    improve(tmp_path, "ort", images)  # neither takes the other's place
    assert len(pulls) == 2


def test_other_images_settings_or_force_pull_again(
    tmp_path: Path, images: list[np.ndarray], pulls: list[object]
) -> None:
    improve(tmp_path, "ort", images)
    improve(tmp_path, "ort", images[:2])
    improve(tmp_path, "ort", images[:2], method=Rounding.NEAREST)
    improve(tmp_path, "ort", images[:2], method=Rounding.NEAREST, force=True)
    assert len(pulls) == 4


@pytest.mark.parametrize("size", [0, 7, 300, -1])
def test_a_damaged_file_is_made_anew(
    size: int, tmp_path: Path, images: list[np.ndarray], pulls: list[object]
) -> None:
    first = improve(tmp_path, "ort", images)
    (path,) = tmp_path.glob("levers-*.safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[:size] if size >= 0 else whole[:-1] + bytes([whole[-1] ^ 1]))
    assert_same(first, improve(tmp_path, "ort", images))
    assert len(pulls) == 2
    assert path.read_bytes() == whole


def test_what_differs_alone_is_made_and_is_what_all_would_give(
    tmp_path: Path, images: list[np.ndarray], pulls: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    real = kept_levers.improve_weights

    def noted(*arguments: object, **settings: object) -> ImprovedWeights:
        asked.append(settings["only"])
        return real(*arguments, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(kept_levers, "improve_weights", noted)
    weights = weights_for("ort")
    first, second, *_ = weights
    changed = weights | {
        second: QuantizedWeight(q=weights[second].q // 2, scale=2 * weights[second].scale)
    }
    for folder in ("both", "alone"):
        for given in (weights, changed) if folder == "both" else (changed,):
            levers = LeversFolder(tmp_path / folder, PROFILES["ort"])
            found = levers.improve(GRAPH, given, images, **SETTINGS)
        if folder == "both":
            expected, kept = found, levers.path.read_bytes()
    assert asked == [weights.keys(), {second}, weights.keys()]
    assert_same(expected, found)
    assert levers.path.read_bytes() == kept
    assert first in found.weights
