"""The settings file: what one repeats on the command line, written down once.

Generic over the commands' options: an option that is added can be set without a line here.
"""

import difflib
import os
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from deploy.errors import DeployError

FILE_NAME = "deploy.toml"
PROJECT_FILE_NAME = "pyproject.toml"  # its table [tool.deploy]
NO_SETTINGS = frozenset({"help", "quiet", "verbose"})  # of the call, not of the project
PLACES = ("DIR", "PATH")  # an option with such a metavar names a place, whatever its type
FILE_AMONG = "|FILE.json"  # one whose metavar ends so may name a file of that ending
WANTED = {bool: "true or false", int: "a whole number", float: "a number"}


class SettingsError(DeployError):
    """A settings file that cannot be used; one line that names the file and the key."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a settings file says."""

    path: Path
    defaults: Mapping[str, Mapping[str, Any]]  # by command, then by the parameter's name


def find_settings() -> Path | None:
    """Return the settings file of the working directory, or of the nearest folder above it.

    Folders above are looked at only inside a git repository, up to its root. In one folder
    ``deploy.toml`` goes before a ``pyproject.toml`` with a table ``[tool.deploy]``.

    Raises:
        SettingsError: a ``pyproject.toml`` on the way cannot be read.
    """
    here = Path.cwd()
    folders = [here, *here.parents]
    roots = [number for number, folder in enumerate(folders) if (folder / ".git").exists()]
    for folder in folders[: roots[0] + 1 if roots else 1]:
        shown = Path(os.path.relpath(folder))
        if (shown / FILE_NAME).is_file():
            return shown / FILE_NAME
        project = shown / PROJECT_FILE_NAME
        if project.is_file() and "deploy" in _read(project).get("tool", {}):
            return project
    return None


def read_settings(path: Path, group: typer.Context) -> Settings:
    """Return what a file sets for each command of the group; paths are relative to the file.

    Top-level keys are defaults of every command that has such an option; a table of a command's
    name holds defaults of that command only, and goes before them. Every key and value of the file
    is checked, whichever command is run.

    Raises:
        SettingsError: the file cannot be read, a key is unknown, or a value does not suit.
    """
    content = _read(path)
    if path.name == PROJECT_FILE_NAME:
        if "deploy" not in content.get("tool", {}):
            raise SettingsError(f"{path} has no table [tool.deploy]: add one or name another file")
        content = content["tool"]["deploy"]
    commands = {
        name: command
        for name, command in typing.cast(TyperGroup, group.command).commands.items()
        if isinstance(command, TyperCommand)
    }
    tables = {key: value for key, value in content.items() if isinstance(value, dict)}
    common = {key: value for key, value in content.items() if key not in tables}
    options = {name: _options(command) for name, command in commands.items()}
    every = {key for found in options.values() for key in found}
    _check_keys(path, "", common, every)
    _check_keys(path, "", tables, commands, "command")
    for name, table in tables.items():
        _check_keys(path, name, table, options[name])
    defaults = {}
    for name, command in commands.items():
        context = typer.Context(command, info_name=name, parent=group)
        values: dict[str, Any] = {}
        for table, place in ((tables.get(name, {}), name), (common, "")):
            for key, option in options[name].items():  # an option's first name before its others
                if key in table and option.name not in values:
                    label = _label(path, place, key)
                    values[option.name] = _value(table[key], label, path.parent, option, context)
        defaults[name] = values
    return Settings(path=path, defaults=defaults)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:  # TOML's own error, and that of UTF-8
        raise SettingsError(f"{path} is no readable TOML: {error}") from None


def _options(command: TyperCommand) -> dict[str, TyperOption]:
    """Return a command's options by the names that they have in a file: long, without dashes."""
    options = [option for option in command.params if isinstance(option, TyperOption)]
    return {
        name.removeprefix("--"): option
        for option in options
        for name in option.opts
        if name.startswith("--") and option.name not in NO_SETTINGS
    }


def _check_keys(
    path: Path, place: str, table: Mapping[str, Any], known: Iterable[str], kind: str = "option"
) -> None:
    """Raise SettingsError at the first key that is none of those known, with the nearest one."""
    names = sorted(known)
    for key in table:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1, cutoff=0.0)[0]
            owner = f"'deploy {place}' has no" if place else "there is no"
            raise SettingsError(f"{_label(path, place, key)}: {owner} such {kind}; nearest: {near}")


def _label(path: Path, place: str, key: str) -> str:
    return f"{path}: [{place}] {key}" if place else f"{path}: {key}"


def _value(
    value: Any, label: str, folder: Path, option: TyperOption, context: typer.Context
) -> Any:
    """Return a value as a flag would give it; raises SettingsError if it does not suit."""
    hint = _hint(context.command, option.name)
    if typing.get_origin(hint) in (list, tuple):
        element = typing.get_args(hint)[0]
        items = value if isinstance(value, list) else [value]
        result: Any = [_scalar(item, label, folder, option, element) for item in items]
    else:
        result = _scalar(value, label, folder, option, hint)
    try:
        option.process_value(context, result)
    except typer.BadParameter as error:
        reason = error.message.removeprefix("Value error, ").rstrip(".")
        of_all = f"[{context.info_name}]" not in label
        remedy = "; set it in the tables of the commands that it suits" if of_all else ""
        raise SettingsError(
            f"{label}, for 'deploy {context.info_name}': {reason}{remedy}"
        ) from None
    return result


def _hint(command: Any, name: str) -> Any:
    """Return the type that a command's function gives a parameter, without its "or None"."""
    hint = typing.get_type_hints(command.callback)[name]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next(part for part in typing.get_args(hint) if part is not types.NoneType)
    return hint


def _scalar(value: Any, label: str, folder: Path, option: TyperOption, hint: Any) -> Any:
    """Return a TOML value checked against a type, a path joined to the file's folder."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    suits = {
        bool: isinstance(value, bool),
        int: number and isinstance(value, int),
        float: number,
        str: isinstance(value, str) or number,  # input-size = 500
    }.get(hint, isinstance(value, str))
    if not suits:
        wanted = WANTED.get(hint, "a text in quotes")
        raise SettingsError(f"{label} is {value!r}: it must be {wanted}")
    may_be_file = str(option.metavar).endswith(FILE_AMONG) and str(value).endswith(".json")
    if hint is Path or str(option.metavar).startswith(PLACES) or may_be_file:
        return str(folder / os.path.expanduser(value))
    return str(value) if hint is str else value
