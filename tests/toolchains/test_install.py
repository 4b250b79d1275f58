"""Toolchains are installed whole or not at all, found, and removed; everything else is one line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.errors import DeployError
from deploy.progress import SilentProgress
from deploy.toolchains import install as room
from deploy.toolchains.folders import cache_folder, downloads_folder, toolchains_folder
from deploy.toolchains.install import find_installed, install, remove
from deploy.toolchains.record import Toolchain, find_toolchain, toolchains

PROGRESS = SilentProgress()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "refinenet-deploy"


@pytest.fixture
def filled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let an installation write one file in place of a gigabyte; return what is asked of it."""
    asked: list[str] = []

    def fill(folder: Path, toolchain: Toolchain, _: object) -> dict[str, list[str]]:
        asked.append(toolchain.name)
        (folder / "content").write_text(toolchain.name)
        return {"debian": ["a_1_arm64.deb"]}

    monkeypatch.setattr(room, "_fill", fill)
    monkeypatch.setattr(room, "require_emulator", lambda _: None)
    return asked


def test_records_say_all_that_a_user_should_know() -> None:
    assert set(toolchains()) >= {"arm", "tvm"}
    for name, record in toolchains().items():
        assert record.name == name
        assert record.licence
        assert 0 < record.download_mb < record.installed_mb
        assert record.python
        assert record.check_program.is_file()
        pins = record.requirements.read_text().splitlines()
        packages = [line for line in pins if line and not line.startswith((" ", "#"))]
        assert packages
        assert all("==" in line and line.endswith("\\") for line in packages)
        assert "://" not in record.requirements.read_text()  # the user's own registry is used


def test_versions_are_those_that_are_pinned_for_us() -> None:
    text = (Path(__file__).parents[2] / "constraints.txt").read_text()
    pinned = {line.lower() for line in text.splitlines()}
    for line in find_toolchain("arm").requirements.read_text().splitlines():
        if "==" in line and not line.startswith("ai-edge"):
            assert line.split()[0] in pinned


def test_folders_are_the_users_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == cache
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, by the specification
    assert cache_folder() == Path.home() / ".cache" / "refinenet-deploy"


def test_it_is_there_whole_and_is_found(filled: list[str], cache: Path) -> None:
    folder = install("arm", PROGRESS)
    assert folder == find_installed("arm") == cache / "toolchains" / "arm"
    content = json.loads((folder / "toolchain.json").read_text())
    assert content["sha256"] == find_toolchain("arm").sha256
    assert content["debian"] == ["a_1_arm64.deb"]
    assert [path.name for path in folder.parent.iterdir()] == ["arm"]
    install("arm", PROGRESS)  # in place of the one that is there
    assert filled == ["arm", "arm"]


def test_one_that_is_broken_off_leaves_what_was_there(
    filled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: Path, *_: object) -> dict[str, str]:
        (folder / "half").write_text("")
        raise KeyboardInterrupt

    before = install("arm", PROGRESS)
    monkeypatch.setattr(room, "_fill", fail)
    with pytest.raises(KeyboardInterrupt):
        install("arm", PROGRESS)
    assert find_installed("arm") == before
    with pytest.raises(KeyboardInterrupt):
        install("tvm", PROGRESS)
    assert [path.name for path in toolchains_folder().iterdir()] == ["arm"]


def test_one_that_is_missing_unknown_or_anothers_is_one_line(filled: list[str]) -> None:
    with pytest.raises(DeployError, match=r"^no toolchain 'arn': choose one of arm, "):
        find_installed("arn")
    with pytest.raises(
        DeployError,
        match=r"^toolchain arm is not installed: run 'deploy toolchain install arm'$",
    ):
        find_installed("arm")
    path = install("arm", PROGRESS) / "toolchain.json"
    path.write_text(path.read_text().replace('"sha256": "', '"sha256": "0'))
    with pytest.raises(DeployError, match=r"installed by another version of deploy: run .* again$"):
        find_installed("arm")
    path.write_text("{")
    with pytest.raises(DeployError, match="not installed"):
        find_installed("arm")


def test_a_licence_that_must_be_accepted_is_asked_for(
    filled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asking = replace(find_toolchain("arm"), accept="The vendor's licence, see its page")
    monkeypatch.setattr(room, "find_toolchain", lambda _: asking)
    with pytest.raises(DeployError, match=r"^arm: The vendor's licence.*: pass --accept-licence"):
        install("arm", PROGRESS)
    assert filled == []
    install("arm", PROGRESS, accept_licence=True)
    assert filled == ["arm"]


def test_a_missing_emulator_is_said_before_anything_is_downloaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        DeployError, match=r"^qemu-aarch64 is not there: run 'apt-get install qemu-user'$"
    ):
        install("arm", PROGRESS)
    assert not cache_folder().exists()


def test_removing_frees_and_downloads_go_with_the_last(filled: list[str]) -> None:
    for name in ("arm", "tvm"):
        install(name, PROGRESS)
    downloads_folder().mkdir(parents=True)
    (downloads_folder() / "wheel").write_bytes(bytes(1000))
    assert remove("arm", PROGRESS) < 1000
    assert (downloads_folder() / "wheel").exists()
    assert remove("tvm", PROGRESS) > 1000
    assert not downloads_folder().exists()
    with pytest.raises(DeployError, match=r"^toolchain tvm is not installed: there is nothing"):
        remove("tvm", PROGRESS)
