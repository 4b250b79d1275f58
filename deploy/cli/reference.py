"""Every command with its arguments, options and example, as Markdown: ``docs/commands.md``.

``python -m deploy.cli.reference docs/commands.md`` writes what stands below the mark anew; what
stands above it is written by hand.
"""

import sys
import typing
from pathlib import Path

import typer
from typer.core import TyperGroup

from deploy.cli import app
from deploy.errors import USER_ERRORS, DeployError
from deploy.store.files import write_whole

MARK = "<!-- What follows is written by the command in the first line. -->\n"
EVERYWHERE = frozenset({"quiet", "verbose"})  # described above the mark


def reference() -> str:
    """Return all commands in the order of ``deploy --help``."""
    group = typing.cast(TyperGroup, typer.main.get_command(app))
    root = typer.Context(group, info_name="deploy")
    parts = ["## deploy OPTIONS COMMAND", _parameters(root, frozenset())]
    for name, command in group.commands.items():
        if command.hidden:
            continue
        context = typer.Context(command, info_name=name, parent=root)
        example = str(command.epilog).removeprefix("Example: ")
        parts += [f"## deploy {name}", str(command.help), _parameters(context, EVERYWHERE)]
        parts.append(f"```\n{example}\n```")
    return "\n\n".join(parts) + "\n"


def _parameters(context: typer.Context, without: frozenset[str]) -> str:
    records = [p.get_help_record(context) for p in context.command.params if p.name not in without]
    shown = [(names, " ".join(text.split())) for names, text in filter(None, records)]
    return "\n".join(f"- `{names}`: {text}" for names, text in shown)


def renewed(text: str) -> str:
    """Return a document with what follows its mark written anew; raises DeployError without one."""
    head, mark, _ = text.partition(MARK)
    if not mark:
        raise DeployError(f"the document lacks its mark, a line of its own: {MARK.strip()}")
    return f"{head}{mark}\n{reference()}"


if __name__ == "__main__":
    try:
        for argument in sys.argv[1:]:
            path = Path(argument)
            write_whole(path, renewed(path.read_text(encoding="utf-8")))
    except USER_ERRORS as error:
        sys.exit(f"{type(error).__name__}: {error}")
