"""The command that installs others' compilers, runtimes and emulators apart: ``toolchain``."""

from enum import StrEnum
from typing import Annotated

import typer

from deploy.cli import display_toolchain
from deploy.cli.options import AsJson
from deploy.progress import ConsoleProgress
from deploy.toolchains import check, install
from deploy.toolchains.record import Toolchain, find_toolchain, toolchains


class Action(StrEnum):
    """What is to be done with a toolchain."""

    LIST = "list"
    INSTALL = "install"
    CHECK = "check"
    REMOVE = "remove"


def propose_toolchains(incomplete: str) -> list[str]:
    """Return the toolchains that begin so, for the shell's completion."""
    return [name for name in toolchains() if name.startswith(incomplete)]


def toolchain(
    action: Annotated[Action, typer.Argument(metavar="list|install|check|remove", help="What.")],
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="Which; not with list.", autocompletion=propose_toolchains
        ),
    ] = None,
    accept_licence: Annotated[
        bool,
        typer.Option("--accept-licence", help="Accept the licence of a toolchain that asks it."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Install others' compilers, runtimes and emulators in folders of their own, and check them.

    They go to the user's cache folder, whole or not at all; check runs a tiny network in one.
    """
    if (action is Action.LIST) != (name is None):
        raise typer.BadParameter("list takes no NAME, everything else does")
    progress = ConsoleProgress()
    if name is None:
        return display_toolchain.listed(
            [_with_state(each) for each in toolchains().values()], as_json=as_json
        )
    record = find_toolchain(name)
    if action is Action.INSTALL:
        for line in display_toolchain.announcement(record):
            progress.note(line)
        folder = install.install(name, progress, accept_licence=accept_licence)
        return display_toolchain.installed(record, folder, install.size_of(folder), as_json=as_json)
    if action is Action.CHECK:
        with progress.step(f"check {name}"):
            found = check.check(name)
        return display_toolchain.checked(found, as_json=as_json)
    return display_toolchain.removed(name, install.remove(name, progress), as_json=as_json)


def _with_state(record: Toolchain) -> tuple[Toolchain, str]:
    found = install.read_installed(record)
    if found is None:
        return record, "not installed"
    same = found.get("sha256") == record.sha256
    return record, "installed" if same else "of another version: install it again"
