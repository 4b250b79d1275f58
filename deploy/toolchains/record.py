"""What a toolchain is: a record beside this file, ``<name>.toml``, with its pinned packages.

To add one: ``<name>.toml``, ``<name>.txt`` (``uv pip compile --generate-hashes``) and
``<name>_check.py``, a program that runs in there and imports nothing of ours.
"""

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

from deploy.errors import DeployError

FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Debian:
    """A root of another architecture's Debian packages, whose programs run in an emulator."""

    architecture: str  # Debian's name of it
    packages: tuple[str, ...]
    platform: str  # uv's name of it, for wheels
    emulator: str  # the command that executes its programs
    emulator_package: str  # of Debian, that has the command


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What is changed in an environment after its packages are there, by paths in site-packages."""

    removed: tuple[str, ...]
    added: Mapping[str, str]  # to the name of a file beside this one


@dataclass(frozen=True, kw_only=True)
class Toolchain:
    """What is installed into a folder of its own."""

    name: str
    title: str  # what is in it
    serves: str  # what it is for: commands and options of ours
    licence: str
    accept: str  # whose licence must be accepted, and where it stands; empty: none
    download_mb: int
    installed_mb: int
    python: tuple[str, ...]  # versions that its packages are pinned for, the first that is there
    debian: Debian | None = None  # None: it runs on this processor
    changes: Changes | None = None

    @property
    def requirements(self) -> Path:
        """The pinned packages, with hashes: all of them, nothing else is installed."""
        return FOLDER / f"{self.name}.txt"

    @property
    def check_program(self) -> Path:
        """What runs a tiny network in it: see check.py."""
        return FOLDER / f"{self.name}_check.py"

    @property
    def sha256(self) -> str:
        """What an installed one must have been made from."""
        made_from = f"{self.python} {self.debian}\n{self.requirements.read_text(encoding='utf-8')}"
        return hashlib.sha256(made_from.encode()).hexdigest()


@cache
def toolchains() -> Mapping[str, Toolchain]:
    """Return all records by name."""
    return MappingProxyType({path.stem: _read(path) for path in sorted(FOLDER.glob("*.toml"))})


def find_toolchain(name: str) -> Toolchain:
    """Return a record; raises DeployError if there is none of that name."""
    known = toolchains()
    if name not in known:
        raise DeployError(f"no toolchain {name!r}: choose one of {', '.join(known)}")
    return known[name]


def _read(path: Path) -> Toolchain:
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    debian, python = content.pop("debian", None), tuple(content.pop("python"))
    if debian is not None:
        debian = Debian(packages=tuple(debian.pop("packages")), **debian)
    changes = content.pop("changes", None)
    if changes is not None:
        changes = Changes(removed=tuple(changes["removed"]), added=changes["added"])
    return Toolchain(name=path.stem, python=python, debian=debian, changes=changes, **content)
