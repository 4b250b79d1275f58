"""The Python API takes plain values: texts for paths and for names of a choice, one for several."""

import functools
import inspect
import types
import typing
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from deploy.errors import DeployError

P = ParamSpec("P")
R = TypeVar("R")


def takes_plain(function: Callable[P, R]) -> Callable[P, R]:
    """Return the function, which also takes texts where its annotations have paths or choices.

    One value may stand for a sequence of several. Annotations are what tells; other values pass.

    Raises (the function returned):
        DeployError: a text is none of the choices, or a value is of no kind that there is.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def plain(*arguments: P.args, **options: P.kwargs) -> R:
        bound = signature.bind(*arguments, **options)
        hints = typing.get_type_hints(function)
        for name, value in bound.arguments.items():
            bound.arguments[name] = _converted(name, value, hints.get(name, Any))
        return function(*bound.args, **bound.kwargs)

    return plain


def _converted(name: str, value: Any, hint: Any) -> Any:
    kinds = _kinds(hint)
    sequences = [kind for kind in kinds if typing.get_origin(kind) is Sequence]
    if sequences:
        several = [value] if isinstance(value, str | Path) else value
        if not isinstance(several, Sequence):
            raise DeployError(f"{name}: {value!r} is no list of values: pass a list")
        (inner,) = typing.get_args(sequences[0])
        return [_converted(name, item, inner) for item in several]
    if isinstance(value, list | tuple) and {str, Path}.intersection(kinds):
        raise DeployError(f"{name}: one value is expected, not {len(value)} of them")
    if isinstance(value, Path) and str in kinds and Path not in kinds:
        return str(value)
    if not isinstance(value, str) or str in kinds or isinstance(value, StrEnum):
        return _checked(name, value, kinds)
    if Path in kinds:
        return Path(value)
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, StrEnum):
            if value in set(kind):
                return kind(value)
            raise DeployError(f"{name}: {value!r} is none of {', '.join(kind)}")
    return _checked(name, value, kinds)


def _checked(name: str, value: Any, kinds: tuple[Any, ...]) -> Any:
    """Return the value if it is of one of the kinds, as far as these are plain classes."""
    is_plain = all(isinstance(k, type) and not getattr(k, "_is_protocol", False) for k in kinds)
    if not is_plain or isinstance(value, kinds) or (float in kinds and isinstance(value, int)):
        return value
    wanted = " or ".join(kind.__name__ for kind in kinds if kind is not type(None))
    raise DeployError(f"{name}: {value!r} is no {wanted}")


def _kinds(hint: Any) -> tuple[Any, ...]:
    """Return the alternatives of an annotation."""
    is_union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    return typing.get_args(hint) if is_union else (hint,)
