"""Checkpoints in which more is pickled than tensors: they load, and nothing of them runs."""

import argparse
import collections
import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deploy.models.checkpoint import load_checkpoint, read_state_dict
from deploy.models.errors import ModelError
from deploy.models.unpickle import Foreign, _Unpickler, load_inert

State = dict[str, Tensor]


class Settings:
    """A class of a trainer's, which the reader does not have."""

    def __init__(self) -> None:
        self.rate = 0.1


class Runs:
    """Pickled, it makes a folder when it is read by one that trusts it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def state() -> State:
    return {k: v.clone() for k, v in network().state_dict().items()}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


WRAPPINGS: dict[str, Callable[[State], Any]] = {
    "numpy scalar": lambda s: {"state_dict": s, "best": np.float64(41.5), "n": np.int64(3)},
    "numpy array": lambda s: {"state_dict": s, "curve": np.arange(5.0)},
    "namespace": lambda s: {"state_dict": s, "args": argparse.Namespace(lr=0.1)},
    "own class": lambda s: {"model": s, "config": Settings(), "path": Path("a/b")},
    "containers": lambda s: {
        "model": s,
        "log": collections.deque([1, 2]),
        "seen": {1, 2},
        "counts": collections.Counter("aab"),
        "by": collections.defaultdict(list, a=[1]),
    },
    "optimizer": lambda s: {"model_state_dict": s, "optimizer": {"state": {0: Settings()}}},
    "segmenter": lambda s: {"segmenter": {f"module.{k}": v for k, v in s.items()}, "epoch": 3},
    "lightning": lambda s: {"state_dict": {f"model.{k}": v for k, v in s.items()}, "hooks": ()},
    "net": lambda s: {f"net.{k}": v for k, v in s.items()},
    "compiled": lambda s: {f"_orig_mod.{k}": v for k, v in s.items()},
    "both": lambda s: {"state_dict": {f"module._orig_mod.{k}": v for k, v in s.items()}},
    "ema": lambda s: {"state_dict_ema": s, "epoch": np.float32(1)},
    "parameters": lambda s: {
        k: nn.Parameter(v) if v.is_floating_point() else v for k, v in s.items()
    },
}


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", WRAPPINGS)
def test_wrapped_checkpoint_loads_strictly(
    name: str, is_zip: bool, state: State, tmp_path: Path
) -> None:
    path = tmp_path / "weights.pth"
    torch.save(WRAPPINGS[name](state), path, _use_new_zipfile_serialization=is_zip)
    found = read_state_dict(path)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key]) for key in state)
    module = network()
    nn.init.zeros_(next(module.parameters()))
    load_checkpoint(module, path)
    assert torch.equal(next(module.parameters()), state["0.weight"])


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_what_would_run_stands_for_nothing(is_zip: bool, state: State, tmp_path: Path) -> None:
    path, folder = tmp_path / "weights.pth", tmp_path / "made"
    content = {"state_dict": state, "payload": Runs(folder), "more": [Runs(folder)]}
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    loaded = load_inert(path)
    assert isinstance(loaded["payload"], Foreign)
    assert read_state_dict(path).keys() == state.keys()
    assert not folder.exists()
    pickle.loads(pickle.dumps(Runs(folder)))  # it does where a file is trusted
    assert folder.is_dir()


def test_a_whole_module_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "module.pth"
    torch.save(network(), path)
    with pytest.raises(ModelError, match=r"module\.pth holds .*not a state dict: save") as error:
        read_state_dict(path)
    assert "\n" not in str(error.value)


def test_a_prefix_that_not_all_keys_share_stays(state: State, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    mixed = {(f"model.{k}" if k.startswith("0") else k): v for k, v in state.items()}
    torch.save(mixed, path)
    assert read_state_dict(path).keys() == mixed.keys()


def test_no_message_has_escape_codes(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps([Settings()])[:-5])
    with pytest.raises(ModelError, match=r"weights\.pth is no torch checkpoint") as error:
        read_state_dict(path)
    assert "\x1b" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_pickle_cannot_change_torchs_functions() -> None:
    own = torch._utils._rebuild_tensor_v2.__defaults__
    text = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}(X\x0c\x00\x00\x00__defaults__)u\x86b."
    _Unpickler(io.BytesIO(text)).load()
    assert torch._utils._rebuild_tensor_v2.__defaults__ == own
