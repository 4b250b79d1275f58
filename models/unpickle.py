"""Reading a torch file in which more is pickled than tensors, without running anything of it.

Trainers store numpy scalars, configurations and whole classes beside the parameters. Here only what
makes tensors and dictionaries is what it says; every other name in the file stands for an inert
object that takes whatever it is given and does nothing: no module is imported, no function called.
"""

import collections
import pickle
import types
from pathlib import Path
from typing import Any

import torch

# What torch.save writes for tensors and state dicts; torch itself resolves names of storages.
MEANT: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch", "Size"): torch.Size,
}


class Foreign(dict[Any, Any]):
    """Stands for an object of any other class; it is empty."""

    def __new__(cls, *arguments: object, **options: object) -> "Foreign":
        """Take what the class would be made of, and forget it."""
        return super().__new__(cls)

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__()

    def __call__(self, *arguments: object, **options: object) -> "Foreign":
        """Stand for what a call would give."""
        return Foreign()

    def __setstate__(self, state: object) -> None:
        """Forget the state."""

    def append(self, item: object) -> None:
        """Forget an item."""

    def extend(self, items: object) -> None:
        """Forget items."""

    def add(self, item: object) -> None:
        """Forget an item."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = MEANT.get((module, name), Foreign)
        if not isinstance(found, types.FunctionType):
            return found
        # a pickle may set attributes of what it is handed: never torch's own function
        return lambda *arguments: found(*arguments)


def _load(file: Any, **options: Any) -> Any:
    return _Unpickler(file, **options).load()


_PICKLE = types.SimpleNamespace(
    Unpickler=_Unpickler, load=_load, UnpicklingError=pickle.UnpicklingError, __name__="pickle"
)


def load_inert(path: Path) -> Any:
    """Return what a torch file holds, with :class:`Foreign` for all that is no tensor or container.

    Raises:
        Exception: what torch raises of a file that it cannot read.
    """
    return torch.load(path, map_location="cpu", pickle_module=_PICKLE, weights_only=False)
