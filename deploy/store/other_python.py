"""Other versions of Python, for tools that do not run on this one, and their environments."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from deploy.errors import DeployError

WHERE = "import sys; print(sys.executable)"


def find_python(*versions: str) -> Path:
    """Return the interpreter of the first of some versions, such as "3.10", that is there.

    It is looked for on the PATH; pyenv's stand-ins there are asked for the version, chosen or not.

    Raises:
        DeployError: there is none of them.
    """
    for version in versions:
        command = shutil.which(f"python{version}")
        if command is None:
            continue
        for chosen in ("", *_pyenv_versions(version)):
            environment = os.environ | ({"PYENV_VERSION": chosen} if chosen else {})
            done = _run([command, "-c", WHERE], environment)
            if done.returncode == 0:
                return Path(done.stdout.strip())
    raise DeployError(f"no Python {' or '.join(versions)} on the PATH: install one of them")


def make_environment(folder: Path, python: Path, packages: Sequence[str]) -> Path:
    """Make a virtual environment with ``packages``, as pip names them; return its interpreter.

    Raises:
        DeployError: it cannot be made, or a package cannot be had; the message is the last line.
    """
    made = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    install = [str(made), "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages]
    for command in ([str(python), "-m", "venv", str(folder)], install):
        done = _run(command, dict(os.environ))
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise DeployError(f"no environment with {' '.join(packages)}: {last[:200]}")
    return made


def _pyenv_versions(version: str) -> list[str]:
    """Return the versions of pyenv that have that interpreter; none where there is no pyenv."""
    if shutil.which("pyenv") is None:
        return []
    return _run(["pyenv", "whence", f"python{version}"], dict(os.environ)).stdout.split()


def _run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
