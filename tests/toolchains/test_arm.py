"""ARM cores in emulation: their description, and the real thing where it is installed."""

import subprocess
from pathlib import Path

import pytest
from toolchains import needs_arm

from deploy.errors import DeployError
from deploy.toolchains.arm import CORES, find_core, python_on, require_arm, write_core
from deploy.toolchains.check import check


def test_an_unknown_core_is_one_line() -> None:
    with pytest.raises(
        DeployError, match=r"^no ARM core 'cortex-m4': choose one of cortex-a53, .*, max$"
    ):
        find_core("cortex-m4")


def test_a_cores_root_has_its_own_processor_and_the_common_rest(tmp_path: Path) -> None:
    (tmp_path / "root" / "usr").mkdir(parents=True)
    for _ in range(2):  # what is there does not disturb
        a72, n1 = (write_core(tmp_path, CORES[name]) for name in ("cortex-a72", "neoverse-n1"))
    assert (a72 / "usr").resolve() == (tmp_path / "root" / "usr").resolve()
    assert "asimddp" in (n1 / "proc" / "cpuinfo").read_text()
    assert "asimddp" not in (a72 / "proc" / "cpuinfo").read_text()
    assert (a72 / "proc" / "cpuinfo").read_text().count("CPU part\t: 0xd08") == 2


@needs_arm
def test_the_toolchain_works() -> None:
    found = check("arm")
    assert found.versions["machine"] == "aarch64"
    assert found.difference < 1e-5


@needs_arm
def test_the_emulated_processor_is_the_core_that_was_asked_for() -> None:
    script = "import platform; print(platform.machine()); print(open('/proc/cpuinfo').read())"
    command = [*python_on(CORES["cortex-a72"], require_arm()), "-c", script]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.startswith("aarch64\n")
    assert "0xd08" in said
