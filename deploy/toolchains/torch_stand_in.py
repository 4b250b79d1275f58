"""In torch's place where a toolchain imports it and, for ONNX graphs, uses nothing but its names.

torch for Linux on the registry is built for CUDA and takes gigabytes. Whatever is asked of this
module is there; what is computed with it fails. It imports nothing of ours: install.py copies it.
"""

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class _Names(type):
    def __getattr__(cls, name: str) -> Any:
        return _absent(name)


class Absent(metaclass=_Names):
    """Whatever is asked for: a class to be derived from, or a decorator that changes nothing."""

    def __init__(self, *given: Any, **named: Any) -> None:
        """Take anything."""

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Decorate: return what is given."""
        return given[0] if given else self

    def __getattr__(self, name: str) -> Any:
        """Return a name."""
        return _absent(name)


class _Finder(MetaPathFinder, Loader):
    """Finds torch.nn and the like."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        is_ours = fullname.startswith(f"{__name__}.")
        return ModuleSpec(fullname, self, is_package=True) if is_ours else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = ModuleType(spec.name)
        module.__getattr__ = _absent  # type: ignore[method-assign]
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing more."""


def _absent(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return Absent


__getattr__ = _absent
__path__: list[str] = []
__version__ = "0"
sys.meta_path.append(_Finder())
