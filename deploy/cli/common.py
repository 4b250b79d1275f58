"""What every command takes and does: settings, -q and -v, completion, how a call ends."""

import functools
import inspect
import sys
import traceback
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from deploy import models, progress
from deploy.cli.settings import Settings, SettingsError, find_settings, read_settings
from deploy.cli.stopping import SIGNALS, Stopped
from deploy.errors import USER_ERRORS
from deploy.store.environment import describe_environment

EXIT_FAILED = 1
EXIT_USAGE = 2

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on standard error.")]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", help="Say what is written, set and installed; tracebacks of errors."
    ),
]


def _versions() -> str:
    environment = describe_environment()
    versions = {"deploy": "not installed"} | {
        name.removeprefix("refinenet-"): number for name, number in environment["versions"].items()
    }
    others = [f"{name} {number}" for name, number in versions.items() if name != "deploy"]
    return ", ".join([f"deploy {versions['deploy']}", f"Python {environment['python']}", *others])


def _print_versions(wanted: bool) -> None:
    if wanted:
        print(_versions())
        raise typer.Exit


def prepare(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="PATH",
            help="Settings. By default deploy.toml, or tool.deploy in pyproject.toml.",
        ),
    ] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print versions and stop.", is_eager=True, callback=_print_versions
        ),
    ] = False,
) -> None:
    """Read the settings before a command's own options are read."""
    progress.tell()  # this call's, whatever an earlier one in the process was told
    _set_verbosity(quiet, verbose)
    path = config or find_settings()
    if path is not None:
        settings = read_settings(path, context)
        context.obj = settings
        context.default_map = {name: dict(values) for name, values in settings.defaults.items()}


def with_common_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command that takes -q and -v too, and proposes variants where it wants some."""
    signature = inspect.signature(command)
    own = [name for name, p in signature.parameters.items() if p.annotation is typer.Context]
    added = {"quiet": Quiet, "verbose": Verbose} | ({} if own else {"context": typer.Context})

    @functools.wraps(command)
    def run(**arguments: Any) -> Any:
        context = arguments[own[0]] if own else arguments.pop("context")
        _set_verbosity(arguments.pop("quiet"), arguments.pop("verbose"))
        if progress.is_verbose():
            _tell_circumstances(context)
        return command(**arguments)

    for parameter in signature.parameters.values():
        for info in getattr(parameter.annotation, "__metadata__", ()):
            if str(info.metavar).startswith("VARIANT"):
                info.autocompletion = propose_variants
    parameters = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation
        )
        for name, annotation in added.items()
    ]
    run.__annotations__ = command.__annotations__ | added
    typing.cast(Any, run).__signature__ = signature.replace(
        parameters=[*signature.parameters.values(), *parameters]
    )
    return run


def propose_variants(incomplete: str) -> list[str]:
    """Return the variants that begin so, for the shell's completion."""
    return [name for name in models.VARIANTS if name.startswith(incomplete)]


def _set_verbosity(quiet: bool, verbose: bool) -> None:
    """Take -q or -v, if one is given here: behind the command it goes before one before it."""
    if quiet and verbose:
        raise typer.BadParameter("--quiet and --verbose exclude each other")
    if quiet or verbose:
        progress.tell(quiet=quiet, verbose=verbose)


def _tell_circumstances(context: typer.Context) -> None:
    progress.LOGGER.debug(_versions())
    settings = context.obj
    if not isinstance(settings, Settings):
        return progress.LOGGER.debug("settings: no file")
    used = [
        f"{param.opts[0]} {context.params[param.name]}"
        for param in context.command.params
        if str(context.get_parameter_source(param.name)).endswith("DEFAULT_MAP")
    ]
    return progress.LOGGER.debug("settings %s: %s", settings.path, ", ".join(used) or "nothing")


def end_with(error: Exception | Stopped) -> NoReturn:
    """Say in one line on standard error why a call ends, and exit with the code for it."""
    if isinstance(error, Stopped):
        print(f"{SIGNALS[error.number]}: nothing half-written was left", file=sys.stderr)
        sys.exit(128 + error.number)
    assert isinstance(error, USER_ERRORS)
    if progress.is_verbose():
        traceback.print_exception(error)
    print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
    sys.exit(EXIT_USAGE if isinstance(error, SettingsError) else EXIT_FAILED)
