import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from deploy.models import (
    VARIANTS,
    ModelError,
    WeightsSource,
    build,
    build_with_weights,
    find_weights,
    load_checkpoint,
    state_dict_hash,
)
from deploy.models.checkpoint import fill_random
from deploy.models.sources import SHIPPED

State = dict[str, Tensor]


def make_module() -> nn.Module:
    """Return a tiny network with every kind of entry: convolution, bias, batch normalization."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


@pytest.fixture
def state() -> State:
    module = make_module()
    fill_random(module, seed=5)
    return dict(module.state_dict())


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Hide the user's cache and the repository's weights; return the empty ``$TORCH_HOME``."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("deploy.models.sources.SHIPPED", tmp_path / "shipped")
    return tmp_path / "torch"


def assert_loads(path: Path, state: State) -> None:
    module = make_module()
    load_checkpoint(module, path)
    loaded = module.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


def assert_refused(path: Path, message: str) -> None:
    """Check the error, that it names the file, and that the network is left as it was."""
    module = make_module()
    before = state_dict_hash(module)
    with pytest.raises(ModelError, match=message) as caught:
        load_checkpoint(module, path)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert state_dict_hash(module) == before


WRAPPINGS: dict[str, Callable[[State], Any]] = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "model": lambda state: {"model": state, "optimizer": {"lr": 0.1}},
    "module_prefix": lambda state: {f"module.{key}": value for key, value in state.items()},
    "wrapped_and_prefixed": lambda state: {
        "state_dict": {f"module.{key}": value for key, value in state.items()}
    },
    "without_counters": lambda state: {
        key: value for key, value in state.items() if not key.endswith("num_batches_tracked")
    },
    "parameters": lambda state: {key: nn.Parameter(v.float()) for key, v in state.items()},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_load_checkpoint_of_a_torch_file(
    wrapping: str, zipped: bool, state: State, tmp_path: Path
) -> None:
    path = tmp_path / "weights.pth.tar"
    torch.save(WRAPPINGS[wrapping](state), path, _use_new_zipfile_serialization=zipped)
    assert_loads(path, state)


@pytest.mark.parametrize("wrapping", ["plain", "module_prefix", "without_counters"])
def test_load_checkpoint_of_safetensors(wrapping: str, state: State, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(WRAPPINGS[wrapping](state), path)
    assert_loads(path, state)


def test_load_checkpoint_takes_a_string(state: State, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "weights.pth")
    module = make_module()
    load_checkpoint(module, str(tmp_path / "weights.pth"))
    assert torch.equal(module.state_dict()["0.weight"], state["0.weight"])


def test_load_checkpoint_of_half_precision_fills_float32(state: State, tmp_path: Path) -> None:
    torch.save({key: value.half() for key, value in state.items()}, tmp_path / "weights.pth")
    module = make_module()
    load_checkpoint(module, tmp_path / "weights.pth")
    weight = module.state_dict()["0.weight"]
    assert weight.dtype == torch.float32
    assert torch.equal(weight, state["0.weight"].half().float())


def remove(*keys: str) -> Callable[[State], State]:
    return lambda state: {key: value for key, value in state.items() if key not in keys}


def replace(key: str, value: Tensor) -> Callable[[State], State]:
    return lambda state: {**state, key: value}


FLAWS: dict[str, tuple[Callable[[State], State], str]] = {
    "missing": (remove("0.weight", "2.bias"), r"2 missing \(0\.weight, 2\.bias\)"),
    "many_missing": (
        lambda state: {"0.weight": state["0.weight"]},
        r"7 missing \(0\.bias, 1\.bias, 1\.running_mean, …\)",
    ),
    "unexpected": (replace("head.weight", torch.ones(2)), r"1 unexpected \(head\.weight\)"),
    "wrong_shape": (
        replace("2.weight", torch.ones(5, 4, 1, 1)),
        r"1 wrongly shaped \(2\.weight \[5, 4, 1, 1\] instead of \[2, 4, 1, 1\]\)",
    ),
    "nan": (
        replace("2.bias", torch.tensor([0.0, float("nan")])),
        r"1 NaN or infinite \(2\.bias\)",
    ),
    "inf": (
        replace("1.running_var", torch.tensor([1.0, 1.0, float("inf"), 1.0])),
        r"1 NaN or infinite \(1\.running_var\)",
    ),
    "minus_inf": (
        replace("2.bias", torch.tensor([0.0, -float("inf")])),
        r"1 NaN or infinite \(2\.bias\)",
    ),
}


@pytest.mark.parametrize("flaw", FLAWS)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_load_checkpoint_that_does_not_fit(
    flaw: str, suffix: str, state: State, tmp_path: Path
) -> None:
    change, message = FLAWS[flaw]
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(change(state), path)
    assert_refused(path, message)


def test_load_checkpoint_names_every_kind_of_flaw_at_once(state: State, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(replace("extra", torch.ones(1))(remove("0.bias")(state)), path)
    assert_refused(path, r"1 missing \(0\.bias\); 1 unexpected \(extra\)")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_load_checkpoint_that_holds_an_entry_twice(
    suffix: str, state: State, tmp_path: Path
) -> None:
    path = tmp_path / f"weights{suffix}"
    doubled = {**state, "module.2.bias": torch.ones(2), "module.0.weight": torch.ones(4, 3, 3, 3)}
    (save_file if suffix == ".safetensors" else torch.save)(doubled, path)
    message = r"holds 2 entries both with and without the prefix 'module\.' \(0\.weight, 2\.bias\)"
    assert_refused(path, message)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.99], ids=["empty", "third", "nearly_whole"])
def test_load_checkpoint_of_a_truncated_file(
    suffix: str, kept: float, state: State, tmp_path: Path
) -> None:
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(state, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    assert_refused(path, "is no (torch checkpoint|readable safetensors file)")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_load_checkpoint_of_any_other_file(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_text("<html>404 Not Found</html>\n" * 20, encoding="utf-8")
    assert_refused(path, "is no (torch checkpoint|readable safetensors file)")


def test_load_checkpoint_of_a_missing_file(tmp_path: Path) -> None:
    assert_refused(tmp_path / "absent.pth", "no checkpoint at .*: pass the path")
    assert_refused(tmp_path / "absent.safetensors", "no checkpoint at .*: pass the path")


def test_load_checkpoint_of_a_folder(tmp_path: Path) -> None:
    assert_refused(tmp_path, "cannot be read")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(2)], "holds list, not a state dict"),
        (torch.ones(2), "holds Tensor, not a state dict"),
        ({}, "holds dict, not a state dict"),
        ({"epoch": 3, "lr": 0.1}, r"holds 2 entries that are no tensors \(epoch, lr\)"),
    ],
    ids=["list", "tensor", "empty", "numbers"],
)
def test_load_checkpoint_of_no_state_dict(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    assert_refused(path, message)


class Payload:
    """An object whose unpickling would create a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def save_pickle(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("save", [torch.save, save_pickle], ids=["torch", "pickle"])
def test_load_checkpoint_runs_no_code(
    save: Callable[[Any, Path], None], state: State, tmp_path: Path
) -> None:
    marker, path = tmp_path / "executed", tmp_path / "weights.pth"
    save({**state, "payload": Payload(marker)}, path)
    # an object beside the parameters stands for nothing; one among them is no tensor
    assert_refused(path, "without running code in it.*save a plain|1 entries that are no tensors")
    assert not marker.exists()
    pickle.loads(pickle.dumps(Payload(marker)))  # the payload itself does work
    assert marker.exists()


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"not read here")
    return path


def test_find_weights_takes_the_first_that_exists(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, no_weights: Path
) -> None:
    assert find_weights("rf-lw50") == WeightsSource(kind="random")
    shipped = touch(tmp_path / "shipped" / "rf-lw50.safetensors")
    assert find_weights("rf-lw50") == WeightsSource(kind="repository", path=shipped)
    cached = touch(no_weights / "models" / "rf_lw50_voc.pth.tar")
    assert find_weights("rf-lw50") == WeightsSource(kind="cache", path=cached)
    given = touch(tmp_path / "mine.pth")
    assert find_weights("rf-lw50", given) == WeightsSource(kind="file", path=given)
    assert find_weights("rf-lw101") == WeightsSource(kind="random")


@pytest.mark.parametrize(
    ("variant_id", "name"),
    [(key, v.upstream_file) for key, v in VARIANTS.items() if v.upstream_file is not None],
)
def test_find_weights_looks_for_the_upstream_name(
    variant_id: str, name: str, no_weights: Path
) -> None:
    cached = touch(no_weights / "models" / name)
    assert find_weights(variant_id).path == cached


@pytest.mark.parametrize("variant_id", ["rf50", "rf152", "rf-lw-nasnet"])
def test_what_was_never_published_is_looked_for_nowhere(variant_id: str, no_weights: Path) -> None:
    (no_weights / "models").mkdir(parents=True)
    assert find_weights(variant_id) == WeightsSource(kind="random")


@pytest.mark.parametrize("value", [None, ""], ids=["unset", "empty"])
def test_find_weights_without_torch_home_looks_in_home(
    value: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("TORCH_HOME", raising=False)
    if value is not None:
        monkeypatch.setenv("TORCH_HOME", value)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    cached = touch(tmp_path / ".torch" / "models" / "rf101_voc.pth.tar")
    assert find_weights("rf101") == WeightsSource(kind="cache", path=cached)


def test_find_weights_given_but_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no checkpoint at .*absent\.pth: pass the path"):
        find_weights("rf-lw-mbv2", tmp_path / "absent.pth")


def test_find_weights_of_an_unknown_variant(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no variant 'rf7'"):
        find_weights("rf7", touch(tmp_path / "mine.pth"))


@pytest.mark.parametrize("kind", ["file", "cache", "repository", "random"])
def test_weights_source_says_what_it_is(kind: str) -> None:
    path = None if kind == "random" else Path("weights.pth")
    source = WeightsSource(kind=kind, path=path)
    assert source.trained == (kind != "random")
    assert str(source) == ("random" if path is None else f"{kind} weights.pth")


@pytest.mark.usefixtures("no_weights")
def test_build_with_weights_without_any_is_seeded() -> None:
    first, source = build_with_weights("rf-lw-mbv2")
    torch.manual_seed(123)  # the global generator plays no part
    second, _ = build_with_weights("rf-lw-mbv2")
    assert source == WeightsSource(kind="random")
    assert state_dict_hash(first) == state_dict_hash(second)
    assert state_dict_hash(first) != state_dict_hash(build("rf-lw-mbv2"))


@pytest.mark.parametrize("variant_id", ["rf-lw50", "rf-lw-mbv2"])
def test_fill_random_keeps_activations_in_range(variant_id: str) -> None:
    with torch.device("meta"):  # saves torch's own initialization
        module = build(variant_id)
    module = module.to_empty(device="cpu")
    fill_random(module)
    image = torch.randn(1, 3, 65, 65, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits = module(image)
    assert 1e-2 < logits.std() < 1e4
    assert len(logits.argmax(dim=1).unique()) > 1


def test_build_with_weights_loads_the_given_file(tmp_path: Path) -> None:
    module = build("rf-lw-mbv2", num_classes=4)
    fill_random(module, seed=9)
    torch.save(module.state_dict(), tmp_path / "mine.pth")
    loaded, source = build_with_weights("rf-lw-mbv2", tmp_path / "mine.pth", num_classes=4)
    assert source == WeightsSource(kind="file", path=tmp_path / "mine.pth")
    assert state_dict_hash(loaded) == state_dict_hash(module)


@pytest.mark.parametrize(
    ("variant_id", "stored_as"), [("rf-lw-mbv2", None), ("rf-lw50", "float16")]
)
def test_shipped_weights_load_strictly_and_are_found(
    variant_id: str, stored_as: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    module, source = build_with_weights(variant_id)
    path = SHIPPED / f"{variant_id}.safetensors"
    assert source == WeightsSource(kind="repository", path=path, stored_as=stored_as)
    assert path.stat().st_size < 56e6
    again = build(variant_id)
    load_checkpoint(again, path)
    assert state_dict_hash(again) == state_dict_hash(module)


def test_state_dict_hash_depends_on_values_and_names_only() -> None:
    module, same = make_module(), make_module()
    same.load_state_dict(module.state_dict())
    same.get_buffer("1.num_batches_tracked").fill_(7)
    assert state_dict_hash(same) == state_dict_hash(module)
    assert state_dict_hash(nn.Sequential(same)) != state_dict_hash(module)
    with torch.no_grad():
        same.get_parameter("0.bias")[0] += 1e-3
    assert state_dict_hash(same) != state_dict_hash(module)
