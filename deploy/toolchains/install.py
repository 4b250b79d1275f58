"""Installing a toolchain, whole or not at all; finding and removing it."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.errors import DeployError
from deploy.progress import Progress
from deploy.store.files import replacing_folder
from deploy.store.locks import hold
from deploy.toolchains.debian import unpack_packages
from deploy.toolchains.folders import INSTALLED, downloads_folder, toolchains_folder
from deploy.toolchains.python import install_for, make_environment
from deploy.toolchains.record import FOLDER, Changes, Toolchain, find_toolchain, toolchains

ENVIRONMENT, ROOT, SITE = "environment", "root", "site"


def read_installed(toolchain: Toolchain) -> Mapping[str, Any] | None:
    """Return what an installed toolchain was made from, or None where there is none."""
    try:
        path = toolchains_folder() / toolchain.name / INSTALLED
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return content
    except (OSError, ValueError):
        return None


def find_installed(name: str) -> Path:
    """Return the folder of a toolchain.

    Raises:
        DeployError: it is not installed, or from other packages than this version knows.
    """
    toolchain = find_toolchain(name)
    found = read_installed(toolchain)
    if found is None:
        raise DeployError(
            f"toolchain {name} is not installed: run 'deploy toolchain install {name}'"
        )
    if found.get("sha256") != toolchain.sha256:
        raise DeployError(
            f"toolchain {name} was installed by another version of deploy: run 'deploy toolchain "
            f"install {name}' again"
        )
    return toolchains_folder() / name


def find_interpreter(name: str) -> Path:
    """Return the Python of a toolchain that runs on this processor; raises as find_installed."""
    return find_installed(name) / ENVIRONMENT / "bin" / "python"


def require_emulator(toolchain: Toolchain) -> None:
    """Raise DeployError where a toolchain is executed by an emulator that is not there."""
    debian = toolchain.debian
    if debian is not None and shutil.which(debian.emulator) is None:
        raise DeployError(
            f"{debian.emulator} is not there: run 'apt-get install {debian.emulator_package}'"
        )


def install(name: str, progress: Progress, *, accept_licence: bool = False) -> Path:
    """Install a toolchain in place of any that is there; return its folder.

    What was downloaded stays, whatever happens: a second try goes on from there.

    Raises:
        DeployError: its licence must be accepted, there is no emulator, or something cannot be had.
    """
    toolchain = find_toolchain(name)
    if toolchain.accept and not accept_licence:
        raise DeployError(f"{name}: {toolchain.accept}: pass --accept-licence if you accept it")
    require_emulator(toolchain)
    folder = toolchains_folder() / name
    with hold(toolchains_folder(), progress), replacing_folder(folder) as new:
        found = _fill(new, toolchain, progress)
        content = {"name": name, "sha256": toolchain.sha256, **found}
        (new / INSTALLED).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return folder


def remove(name: str, progress: Progress) -> int:
    """Remove a toolchain, and the downloads with the last one; return how many bytes that frees.

    Raises:
        DeployError: it is not there, or cannot be removed.
    """
    folder = toolchains_folder() / find_toolchain(name).name
    if not folder.is_dir():
        raise DeployError(f"toolchain {name} is not installed: there is nothing to remove")
    with hold(toolchains_folder(), progress):
        going = [folder]
        if all(read_installed(t) is None for n, t in toolchains().items() if n != name):
            going += [path for path in (downloads_folder(),) if path.is_dir()]
        freed = sum(map(size_of, going))
        try:
            (folder / INSTALLED).unlink(missing_ok=True)  # from now on it is none, not half of one
            for path in going:
                shutil.rmtree(path)
        except OSError as error:
            raise DeployError(f"{folder} cannot be removed: {error.strerror or error}") from None
    return freed


def size_of(folder: Path) -> int:
    """Return the size of the files in a folder, bytes; one with several names counts once."""
    states = [p.lstat() for p in folder.rglob("*") if p.is_file() and not p.is_symlink()]
    return sum({(s.st_dev, s.st_ino): s.st_size for s in states}.values())


def _fill(folder: Path, toolchain: Toolchain, progress: Progress) -> dict[str, Any]:
    """Fill a folder; return what is to be kept of how it was done."""
    debian = toolchain.debian
    if debian is None:
        with progress.step(f"Python packages of {toolchain.name}"):
            make_environment(folder / ENVIRONMENT, toolchain.python, toolchain.requirements)
            if toolchain.changes is not None:
                _change(folder / ENVIRONMENT, toolchain.changes)
        return {}
    with progress.step(f"Debian's for {debian.architecture}"):
        packages = unpack_packages(folder / ROOT, debian.architecture, debian.packages)
    with progress.step(f"Python packages of {toolchain.name}"):
        (python,) = toolchain.python
        install_for(folder / SITE, python, debian.platform, toolchain.requirements)
    return {"debian": packages}


def _change(environment: Path, changes: Changes) -> None:
    """Remove files of an environment's packages, and add some of ours."""
    (packages,) = environment.glob("lib/python*/site-packages")
    for name in changes.removed:
        (packages / name).unlink()
    for name, source in changes.added.items():
        shutil.copyfile(FOLDER / source, packages / name)
