"""Packages of another architecture, from the Debian sources that this system is configured with.

apt gets folders of its own, so that it needs no rights, and the system's lists and architectures
stay as they are.
"""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from deploy.errors import DeployError
from deploy.toolchains.folders import downloads_folder
from deploy.toolchains.python import last_line

SECONDS = 1800.0
TOOLS = ("apt-get", "dpkg-deb")


def unpack_packages(root: Path, architecture: str, packages: Sequence[str]) -> list[str]:
    """Unpack Debian's packages into a folder; return their files' names, which hold the versions.

    Raises:
        DeployError: this is no Debian, or a package cannot be had.
    """
    if missing := [name for name in TOOLS if shutil.which(name) is None]:
        raise DeployError(f"{missing[0]} is not there: this is installed on Debian 12 alone")
    work = downloads_folder() / f"debian-{architecture}"
    for name in ("lists/partial", "cache/archives/partial", "packages"):
        (work / name).mkdir(parents=True, exist_ok=True)
    (work / "status").touch()
    options = [
        *("-q", "-o", "APT::Sandbox::User=root", "-o", "Debug::NoLocking=1"),
        *(f"-oAPT::Architecture={architecture}", f"-oAPT::Architectures={architecture}"),
        *(f"-oDir::State={work}", f"-oDir::State::Lists={work / 'lists'}"),
        *(f"-oDir::State::status={work / 'status'}", f"-oDir::Cache={work / 'cache'}"),
    ]
    _run(["apt-get", *options, "update"], work)
    _run(["apt-get", *options, "download", *packages], work / "packages")
    found = [_newest(work / "packages", package) for package in packages]
    for path in found:
        _run(["dpkg-deb", "--extract", str(path), str(root)], work)
    return [path.name for path in found]


def _newest(folder: Path, package: str) -> Path:
    """Return a package's file; of several versions the one downloaded last."""
    files = sorted(folder.glob(f"{package}_*.deb"), key=lambda path: path.stat().st_mtime)
    if not files:
        raise DeployError(f"apt-get did not download {package}: try again")
    for old in files[:-1]:
        old.unlink()
    return files[-1]


def _run(command: Sequence[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=SECONDS, cwd=folder
        )
    except subprocess.TimeoutExpired:
        raise DeployError(f"{command[0]} gave no end within {SECONDS:g} s: try again") from None
    if done.returncode:
        raise DeployError(
            f"Debian 12's packages cannot be had by {command[0]}: {last_line(done.stderr)}"
        )
