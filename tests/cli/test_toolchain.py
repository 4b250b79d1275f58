"""``deploy toolchain``: what it lists, and one line where something is wrong."""

import json
from pathlib import Path

import pytest
from conftest import run_main

from deploy.toolchains import install as room

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "refinenet-deploy"


def test_list_says_what_is_installed(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    code, out, _ = run_main(["toolchain", "list"], monkeypatch, capsys)
    assert code == 0
    assert "arm: not installed\n" in out
    assert "licences: " in out
    assert not cache.exists()
    (cache / "toolchains" / "arm").mkdir(parents=True)
    (cache / "toolchains" / "arm" / "toolchain.json").write_text('{"sha256": "0"}')
    code, out, _ = run_main(["toolchain", "list", "--json"], monkeypatch, capsys)
    states = {each["name"]: each["state"] for each in json.loads(out)}
    assert states["arm"] == "of another version: install it again"
    assert states["tvm"] == "not installed"


def test_size_and_licences_are_shown_before_anything_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(room, "require_emulator", lambda _: None)

    def fill(folder: Path, *_: object) -> dict[str, str]:
        said = capsys.readouterr().err
        assert "licences: onnxruntime MIT" in said
        assert "MB to download" in said
        (folder / "content").write_bytes(bytes(2_000_000))
        return {}

    monkeypatch.setattr(room, "_fill", fill)
    code, out, _ = run_main(["toolchain", "install", "arm"], monkeypatch, capsys)
    assert code == 0
    assert out.endswith("arm  (2 MB)\ncheck: deploy toolchain check arm\n")
    code, out, _ = run_main(["toolchain", "remove", "arm"], monkeypatch, capsys)
    assert (code, out) == (0, "arm is removed, 2 MB are free\n")


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["check", "arm"], 1, "toolchain arm is not installed: run 'deploy toolchain install arm'"),
        (["remove", "arm"], 1, "toolchain arm is not installed: there is nothing to remove"),
        (["install", "nope"], 1, "no toolchain 'nope': choose one of arm, "),
        (["install"], 2, "list takes no NAME, everything else does"),
        (["list", "arm"], 2, "list takes no NAME, everything else does"),
    ],
)
def test_wrong_use_is_one_line_and_leaves_nothing(
    arguments: list[str],
    code: int,
    line: str,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    found, _, err = run_main(["toolchain", *arguments], monkeypatch, capsys)
    assert found == code
    assert line in err
    assert not cache.exists()
