"""Environments of other Pythons, made by uv from pinned packages.

uv finds the interpreters that are there (PATH, pyenv, its own) and downloads one that is missing,
where it can.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from deploy.errors import DeployError
from deploy.toolchains.folders import downloads_folder

HASHED = ("--no-deps", "--require-hashes", "--only-binary", ":all:")
SECONDS = 3600.0  # that a download may take


def make_environment(folder: Path, pythons: Sequence[str], requirements: Path) -> Path:
    """Make a virtual environment; return its interpreter.

    Args:
        folder: where; it may be moved later on.
        pythons: versions, such as "3.10": the first that can be had is taken.
        requirements: pinned packages with their hashes; nothing else is installed.

    Raises:
        DeployError: there is no such interpreter, or a package cannot be had.
    """
    _make(folder, pythons)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    _install(requirements, "--python", str(python))
    return python


def install_for(folder: Path, python: str, platform: str, requirements: Path) -> None:
    """Unpack wheels for another platform into a folder.

    Args:
        folder: where; an interpreter there finds them by its PYTHONPATH.
        python: the version of that interpreter.
        platform: uv's name of its platform.
        requirements: pinned packages with their hashes; nothing else is installed.

    Raises:
        DeployError: a package cannot be had.
    """
    where = ("--target", str(folder), "--python-version", python, "--python-platform", platform)
    _install(requirements, *where)


def _make(folder: Path, pythons: Sequence[str]) -> None:
    for version in pythons:
        done = run_uv("venv", "--quiet", "--relocatable", "--python", version, str(folder))
        if done.returncode == 0:
            return
    raise DeployError(
        f"no Python {' or '.join(pythons)} is there, and uv could not get one "
        f"({last_line(done.stderr)}): install one of them, so that it is on the PATH"
    )


def _install(requirements: Path, *where: str) -> None:
    done = run_uv("pip", "install", "--quiet", *HASHED, "--requirements", str(requirements), *where)
    if done.returncode:
        raise DeployError(
            f"the packages of {requirements.name} cannot be had: {last_line(done.stderr)}"
        )


def run_uv(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run uv; what it downloads stays in our folder.

    Raises:
        DeployError: uv is not installed, or gave no end.
    """
    try:
        from uv import find_uv_bin

        command = [find_uv_bin(), *arguments]
        environment = os.environ | {"UV_CACHE_DIR": str(downloads_folder() / "uv")} | _pyenv()
        environment.pop("VIRTUAL_ENV", None)
        return subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            env=environment,
            timeout=SECONDS,
        )
    except (ImportError, OSError) as error:
        raise DeployError(f"uv cannot be run ({error}): run 'pip install uv'") from None
    except subprocess.TimeoutExpired:
        raise DeployError(f"uv gave no end within {SECONDS:g} s: try again") from None


def _pyenv() -> dict[str, str]:
    """Return what lets pyenv's stand-ins on the PATH be any version that it has, chosen or not."""
    if shutil.which("pyenv") is None:
        return {}
    done = subprocess.run(
        ["pyenv", "versions", "--bare"], check=False, capture_output=True, text=True
    )
    versions = [line.strip() for line in done.stdout.splitlines() if "/" not in line]
    return {"PYENV_VERSION": ":".join(reversed(versions))} if versions else {}


def last_line(text: str) -> str:
    """Return what a program says of its failure: the last line that says something, shortened."""
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith(("hint:", "note:", "W:"))]
    return (said or lines or ["no message"])[-1].strip("╰─▶│× ")[:200]
