"""A toolchain's check: a program that computes, computes wrong, fails, crashes or hangs."""

import sys
from pathlib import Path

import pytest

from deploy.errors import DeployError
from deploy.toolchains import check as room
from deploy.toolchains.record import Toolchain

PROGRAM = """\
import json, os, sys, time
import numpy as np
folder = sys.argv[1]
expected = np.load(folder + "/expected.npy")
{}
np.save(folder + "/result.npy", expected)
print(json.dumps({{"library": "1.0"}}))
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file of the program that checks, in the Python that runs the tests."""
    path = tmp_path / "it_check.py"
    monkeypatch.setattr(room, "_interpreter", lambda _: [sys.executable])
    monkeypatch.setattr(Toolchain, "check_program", path)
    return path


def test_one_that_works_says_its_versions(program: Path) -> None:
    program.write_text(PROGRAM.format(""))
    found = room.check("tvm")
    assert (found.versions, found.difference) == ({"library": "1.0"}, 0.0)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("expected = expected * 1.2", r"computes wrong: its result is off by 2\d\.\d% of its"),
        ("expected = expected[:, 1:]", r"gives \(1, 7, 32, 32\), \(1, 8, 32, 32\) is right"),
        ("sys.exit('no kernel')", r"does not work \(exit code 1, no kernel\)"),
        ("os.abort()", r"does not work \(SIGABRT, no message\)"),
        ("print('{'); sys.exit()", "gives no result: "),
        ("time.sleep(60)", r"gave no result within 1\.5 s"),
    ],
)
def test_one_that_does_not_is_one_line(
    program: Path, line: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program.write_text(PROGRAM.format(line))
    monkeypatch.setattr(room, "SECONDS", 1.5 if "sleep" in line else 60.0)
    with pytest.raises(DeployError, match=f"^toolchain tvm {message}") as caught:
        room.check("tvm")
    assert "\n" not in str(caught.value)
