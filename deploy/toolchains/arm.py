"""64-bit ARM processors in qemu-user: a root of Debian's packages, and a processor's description.

onnxruntime reads /proc/cpuinfo besides what the processor tells: the emulator takes the root's in
place of the host's, which would be another processor's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from deploy.errors import DeployError
from deploy.toolchains.install import ROOT, SITE, find_installed, require_emulator
from deploy.toolchains.record import find_toolchain

TOOLCHAIN = "arm"
CORES_FOLDER = "cores"
BASE = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
HALF = "atomics fphp asimdhp asimdrdm lrcpc dcpop"  # ARMv8.2
PROCESSOR = """\
processor\t: {number}
BogoMIPS\t: 100.00
Features\t: {features}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: {part}
CPU revision\t: 1

"""


@dataclass(frozen=True, kw_only=True)
class Core:
    """A processor core that qemu emulates."""

    name: str  # qemu's
    part: str  # its number in /proc/cpuinfo, ARM's
    features: str  # there
    products: str  # its instructions for 8-bit products, in words
    without: str = ""  # what qemu shall switch off of it


# LiteRT 2.3.0's kernels for SME give wrong results in qemu 7.2; whose fault that is, only a board
# with SME could tell.
NO_SME = ",sme=off"
# Parts and features: ARM's Technical Reference Manuals and Linux' arch/arm64/kernel/cpuinfo.c.
CORES: Mapping[str, Core] = MappingProxyType(
    {
        name: Core(name=name, part=part, features=features, products=products, without=without)
        for name, part, features, products, without in (
            ("cortex-a53", "0xd03", BASE, "none", ""),
            ("cortex-a72", "0xd08", BASE, "none", ""),
            ("cortex-a76", "0xd0b", f"{BASE} {HALF} asimddp", "dot products", ""),
            ("neoverse-n1", "0xd0c", f"{BASE} {HALF} asimddp", "dot products", ""),
            ("max", "0xd40", f"{BASE} {HALF} asimddp i8mm", "dot products and i8mm", NO_SME),
        )
    }
)
DEFAULT_CORE = "neoverse-n1"


def find_core(name: str) -> Core:
    """Return a core; raises DeployError if none of that name is known."""
    if name not in CORES:
        raise DeployError(f"no ARM core {name!r}: choose one of {', '.join(CORES)}")
    return CORES[name]


def require_arm() -> Path:
    """Return the toolchain's folder.

    Raises:
        DeployError: it is not installed, or by another version of deploy, or there is no emulator.
    """
    folder = find_installed(TOOLCHAIN)
    require_emulator(find_toolchain(TOOLCHAIN))
    return folder


def python_on(core: Core, folder: Path) -> list[str]:
    """Return the command of a Python on an emulated core, which sees the toolchain's packages."""
    debian = find_toolchain(TOOLCHAIN).debian
    assert debian is not None
    (python,) = find_toolchain(TOOLCHAIN).python
    root = write_core(folder, core)
    paths = [
        "-L",
        str(root),
        "-cpu",
        f"{core.name}{core.without}",
        "-E",
        f"PYTHONPATH={folder / SITE}",
    ]
    return [debian.emulator, *paths, str(folder / ROOT / "usr" / "bin" / f"python{python}"), "-P"]


def write_core(folder: Path, core: Core) -> Path:
    """Return a core's root, which is made if it is not there: the common one, its own /proc."""
    root = folder / CORES_FOLDER / core.name
    (root / "proc").mkdir(parents=True, exist_ok=True)
    for path in (folder / ROOT).iterdir():
        link = root / path.name
        if not link.is_symlink():
            link.symlink_to(Path("..", "..", ROOT, path.name))
    described = "".join(
        PROCESSOR.format(number=i, features=core.features, part=core.part) for i in range(2)
    )
    (root / "proc" / "cpuinfo").write_text(described, encoding="ascii")
    return root
