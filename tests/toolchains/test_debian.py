"""Packages of another architecture: apt's own words in one line where it fails."""

import os
import shutil
from pathlib import Path

import pytest

from deploy.errors import DeployError
from deploy.toolchains.debian import unpack_packages


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def stand_in(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_a_system_without_apt_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match=r"^apt-get is not there: .* Debian 12"):
        unpack_packages(tmp_path / "root", "arm64", ["libc6"])


def test_what_apt_refuses_is_one_line(cache: Path) -> None:
    stand_in(cache, "dpkg-deb", "")
    said = "echo 'W: something else' >&2; echo 'E: Unable to locate package python3.11' >&2"
    stand_in(cache, "apt-get", f'case "$*" in *download*) {said}; exit 100;; esac')
    with pytest.raises(DeployError, match=r"apt-get: E: Unable to locate package python3\.11$"):
        unpack_packages(cache / "root", "arm64", ["python3.11"])


def test_the_systems_lists_and_architectures_are_left_alone(cache: Path) -> None:
    stand_in(cache, "dpkg-deb", f'echo "$@" >>{cache}/extracted')
    download = 'for p in "$@"; do :; done; : >"${p}_1_arm64.deb"'
    stand_in(
        cache,
        "apt-get",
        f'echo "$@" >>{cache}/asked; case "$*" in *download*) {download};; esac',
    )
    assert unpack_packages(cache / "root", "arm64", ["libc6"]) == ["libc6_1_arm64.deb"]
    for line in (cache / "asked").read_text().splitlines():
        for option in ("Dir::State=", "Dir::State::Lists=", "Dir::Cache=", "Dir::State::status="):
            (value,) = [word for word in line.split() if word.startswith(f"-o{option}")]
            assert value.removeprefix(f"-o{option}").startswith(str(cache))
        assert "-oAPT::Architecture=arm64" in line
    assert (cache / "extracted").read_text().endswith(f"libc6_1_arm64.deb {cache / 'root'}\n")


@pytest.mark.skipif(shutil.which("apt-get", path=os.defpath) is None, reason="no apt-get here")
def test_a_package_that_there_is_not_is_one_line(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.defpath)
    with pytest.raises(DeployError, match=r"^Debian 12's packages cannot be had by apt-get: "):
        unpack_packages(cache / "root", "arm64", ["no-such-package-of-debian"])
