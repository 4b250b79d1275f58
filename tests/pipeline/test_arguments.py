from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

import pytest

import deploy
from deploy.errors import DeployError
from deploy.pipeline.arguments import takes_plain


class Shade(StrEnum):
    DARK = "dark"
    LIGHT = "light"


@takes_plain
def function(
    names: Sequence[str] = (),
    *,
    name: str = "",
    path: Path | None = None,
    paths: Sequence[Path] = (),
    shade: Shade | None = None,
    shades: Sequence[Shade] = (),
    number: float = 0.0,
) -> tuple[object, ...]:
    """Return what it was given."""
    return names, name, path, paths, shade, shades, number


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"names": "one"}, (["one"], "", None, (), None, (), 0.0)),
        ({"names": Path("a/b")}, (["a/b"], "", None, (), None, (), 0.0)),
        ({"name": Path("a/b")}, ((), "a/b", None, (), None, (), 0.0)),
        ({"path": "a/b"}, ((), "", Path("a/b"), (), None, (), 0.0)),
        ({"path": None}, ((), "", None, (), None, (), 0.0)),
        ({"paths": ["a", Path("b")]}, ((), "", None, [Path("a"), Path("b")], None, (), 0.0)),
        ({"paths": "a"}, ((), "", None, [Path("a")], None, (), 0.0)),
        ({"shade": "dark"}, ((), "", None, (), Shade.DARK, (), 0.0)),
        ({"shades": "light"}, ((), "", None, (), None, [Shade.LIGHT], 0.0)),
        ({"number": 3}, ((), "", None, (), None, (), 3)),
    ],
    ids=str,
)
def test_plain_values_become_what_is_meant(
    options: dict[str, object], expected: tuple[object, ...]
) -> None:
    assert function(**options) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shade": "blue"}, "shade: 'blue' is none of dark, light"),
        ({"names": 3}, "names: 3 is no list of values: pass a list"),
        ({"path": ["a", "b"]}, "path: one value is expected, not 2 of them"),
        ({"path": 3}, "path: 3 is no Path"),
        ({"number": "3"}, "number: '3' is no float"),
        ({"name": ["a"]}, "name: one value is expected, not 1 of them"),
    ],
    ids=str,
)
def test_what_is_meant_by_no_value_is_one_line(options: dict[str, object], message: str) -> None:
    with pytest.raises(DeployError, match=f"^{message}$"):
        function(**options)  # type: ignore[arg-type]


def test_annotations_and_names_stay() -> None:
    assert function.__name__ == "function"
    assert deploy.quantize.__doc__


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: deploy.validate("no.onnx", runtime="cuda"), "runtime: 'cuda' is none of"),
        (lambda: deploy.quantize("no.onnx", fit="round"), "fit: 'round' is none of"),
        (lambda: deploy.inspect(["a", "b"]), "target: one value"),
        (lambda: deploy.predict(["a"], "b"), "model: one value"),
        (lambda: deploy.quantize("no.onnx", method="mse"), "method: 'mse' is no RangeConfig"),
        (lambda: deploy.export("rf-lw50", out=3), "out: 3 is no Path"),
    ],
    ids=["validate", "quantize", "inspect", "predict", "method", "out"],
)
def test_the_api_refuses_in_one_line(call: object, message: str) -> None:
    with pytest.raises(DeployError, match=message):
        call()  # type: ignore[operator]
