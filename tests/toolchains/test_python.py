"""Environments that uv makes, for real: what is pinned and nothing else, or one line."""

import subprocess
import sys
from pathlib import Path

import pytest

from deploy.errors import DeployError
from deploy.toolchains import python as room
from deploy.toolchains.python import install_for, last_line, make_environment

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
PINNED = "iniconfig==2.3.1 --hash=sha256:{}\n"  # pure Python, a few kilobytes, of constraints.txt


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def requirements(tmp_path: Path) -> Path:
    """Return a pinned package with the hash that the registry tells."""
    source, pinned = tmp_path / "it.in", tmp_path / "it.txt"
    source.write_text("iniconfig==2.3.1\n")
    done = room.run_uv(
        *("pip", "compile", "--quiet", "--generate-hashes", "--no-header"),
        *("--output-file", str(pinned), str(source)),
    )
    if done.returncode:
        pytest.skip(f"no package registry: {last_line(done.stderr)}")
    return pinned


def test_an_environment_has_what_is_pinned_and_may_be_moved(
    tmp_path: Path, requirements: Path
) -> None:
    make_environment(tmp_path / "made", ["3.99", VERSION], requirements)
    moved = (tmp_path / "made").rename(tmp_path / "moved")
    script = "import sys, iniconfig; print(*sys.version_info[:2], sep='.')"
    done = subprocess.run(
        [moved / "bin" / "python", "-I", "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == VERSION


def test_wheels_for_another_platform_are_unpacked(tmp_path: Path, requirements: Path) -> None:
    install_for(tmp_path / "site", "3.11", "aarch64-manylinux_2_28", requirements)
    assert (tmp_path / "site" / "iniconfig" / "__init__.py").is_file()


def test_a_missing_interpreter_is_one_line(tmp_path: Path, requirements: Path) -> None:
    with pytest.raises(DeployError, match=r"^no Python 3\.98 or 3\.99 is there, and uv") as caught:
        make_environment(tmp_path / "made", ["3.98", "3.99"], requirements)
    assert "install one of them" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_package_of_another_hash_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "it.txt").write_text(PINNED.format("0" * 64))
    with pytest.raises(DeployError, match=r"^the packages of it\.txt cannot be had: ") as caught:
        install_for(tmp_path / "site", "3.11", "aarch64-manylinux_2_28", tmp_path / "it.txt")
    assert "\n" not in str(caught.value)


def test_a_missing_uv_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "uv", None)
    with pytest.raises(DeployError, match=r"^uv cannot be run \(.*\): run 'pip install uv'$"):
        make_environment(tmp_path / "made", ["3.11"], tmp_path / "it.txt")


def test_stand_ins_of_pyenv_may_be_any_version_that_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "pyenv"
    script.write_text("#!/bin/sh\nprintf '3.8.1\\n3.10.2\\n3.10.2/envs/mine\\n'\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert room._pyenv() == {"PYENV_VERSION": "3.10.2:3.8.1"}


def test_the_reason_is_the_line_that_says_it() -> None:
    assert last_line("error: no\n  ╰─▶ because of that\nhint: look there\n") == "because of that"
    assert last_line("") == "no message"
