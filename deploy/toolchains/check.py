"""Whether an installed toolchain works: its own program runs a tiny network in it.

``<name>_check.py FOLDER`` finds there what tiny.py wrote, runs it, writes ``result.npy`` beside it,
and prints one line of JSON: the versions of what ran.
"""

import json
import os
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.errors import DeployError
from deploy.toolchains import arm
from deploy.toolchains.install import find_interpreter
from deploy.toolchains.python import last_line
from deploy.toolchains.record import Toolchain, find_toolchain
from deploy.toolchains.tiny import write_tiny

SECONDS = 1800.0
TOLERANCE = 0.05  # of the result's range: 8 bits and less than perfect ranges


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What a check found."""

    name: str
    versions: dict[str, str]
    difference: float  # of the result from onnxruntime's, of its range


def check(name: str) -> Checked:
    """Run a tiny network in a toolchain.

    Raises:
        DeployError: it is not installed, or by another version, it fails, crashes or hangs, or its
            result is another than onnxruntime's by more than an 8-bit network's may be.
    """
    toolchain = find_toolchain(name)
    command = _interpreter(toolchain)
    with tempfile.TemporaryDirectory(prefix="deploy-") as text:
        folder = Path(text)
        write_tiny(folder)
        said = _run([*command, str(toolchain.check_program), str(folder)], folder, name)
        try:
            versions = json.loads(said)
            found = np.load(folder / "result.npy")
        except (OSError, ValueError) as error:
            raise DeployError(f"toolchain {name} gives no result: {error}") from None
        expected = np.load(folder / "expected.npy")
    if found.shape != expected.shape:
        raise DeployError(f"toolchain {name} gives {found.shape}, {expected.shape} is right")
    difference = float(np.abs(found - expected).max() / np.ptp(expected))
    if not difference < TOLERANCE:
        raise DeployError(
            f"toolchain {name} computes wrong: its result is off by {100 * difference:.1f}% of "
            f"its range; run 'deploy toolchain install {name}' again"
        )
    return Checked(name=name, versions=versions, difference=difference)


def _interpreter(toolchain: Toolchain) -> list[str]:
    """Return the command of the Python in a toolchain."""
    if toolchain.debian is None:
        return [str(find_interpreter(toolchain.name)), "-I"]
    folder = arm.require_arm()
    return arm.python_on(arm.find_core(arm.DEFAULT_CORE), folder)


def _run(command: list[str], folder: Path, name: str) -> str:
    """Return what a program prints; it and what it starts are ended where it takes too long."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=SECONDS)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise DeployError(f"toolchain {name} gave no result within {SECONDS:g} s") from None
        raise
    if process.returncode:
        said = f"exit code {process.returncode}, {last_line(errors)}"
        if process.returncode < 0:
            said = f"{signal.Signals(-process.returncode).name}, {last_line(errors)}"
        raise DeployError(f"toolchain {name} does not work ({said})")
    return output.splitlines()[-1] if output.strip() else ""
