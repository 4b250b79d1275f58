"""Telling a person what is going on, on standard error: how much of it is decided here."""

import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

T = TypeVar("T")
LOGGER = logging.getLogger("deploy")  # INFO: what is going on; DEBUG: what a person asks -v for


class _StandardError(logging.Handler):
    """Writes to what is standard error now: a progress bar puts itself in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the message, and nothing around it."""
        print(self.format(record), file=sys.stderr)


def tell(*, quiet: bool = False, verbose: bool = False) -> None:
    """Decide for the whole process what is told on standard error: little, as ever, or more."""
    LOGGER.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)
    LOGGER.handlers = [_StandardError()]
    LOGGER.propagate = False


def is_quiet() -> bool:
    """Say whether progress is unwanted; where nobody has decided, it is shown."""
    return LOGGER.level > logging.INFO


def is_verbose() -> bool:
    """Say whether files, versions and tracebacks are wanted."""
    return LOGGER.isEnabledFor(logging.DEBUG)


REUSED = "reused"  # the note of a stage whose result was there already


@dataclass
class Step:
    """A stage at work; ``note`` stands in its line at the end."""

    note: str = ""


class Progress(Protocol):
    """How a stage reports that it is at work; what it takes is kept in ``seconds``."""

    seconds: dict[str, float]

    def step(self, stage: str) -> AbstractContextManager[Step]:
        """Enclose work that has no parts to count."""
        ...

    def note(self, text: str) -> None:
        """Say at once what is out of the ordinary."""
        ...

    def track(self, items: Sequence[T], stage: str, passes: int = 1) -> Iterator[T]:
        """Yield ``items``, several times over, and show how many are done."""
        ...

    def spread(self, stage: str, total: int) -> AbstractContextManager[Callable[[int, int], None]]:
        """Enclose work on a cluster; it tells how many of ``total`` are done, over how many."""
        ...


class SilentProgress:
    """Measures, and shows nothing."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, stage: str) -> Iterator[Step]:
        """Enclose work that has no parts to count."""
        start = time.perf_counter()
        yield Step()
        self.seconds[stage] = time.perf_counter() - start

    def note(self, text: str) -> None:
        """Say nothing."""

    def track(self, items: Sequence[T], stage: str, passes: int = 1) -> Iterator[T]:
        """Yield ``items``, several times over."""
        with self.step(stage):
            for _ in range(passes):
                yield from items

    @contextmanager
    def spread(self, stage: str, total: int) -> Iterator[Callable[[int, int], None]]:
        """Enclose work on a cluster."""
        with self.step(stage):
            yield lambda done, workers: None


class ConsoleProgress(SilentProgress):
    """Shows a spinner or a bar while a stage is at work, and then a line with its time."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__()
        self.console = console or Console(stderr=True, highlight=False, quiet=is_quiet())

    @contextmanager
    def step(self, stage: str) -> Iterator[Step]:
        """Enclose work that has no parts to count."""
        with super().step(stage) as step, self.console.status(stage):
            yield step
        self._done(stage, step.note)

    def note(self, text: str) -> None:
        """Print a line."""
        self.console.print(f"  {text}", soft_wrap=True, markup=False)

    def track(self, items: Sequence[T], stage: str, passes: int = 1) -> Iterator[T]:
        """Yield ``items``, several times over, and show how many are done."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        bar = RichProgress(*columns, console=self.console, transient=True)
        repeated = [item for _ in range(passes) for item in items]
        with super().step(stage):
            if self.console.is_terminal:
                with bar:
                    yield from bar.track(repeated, description=stage)
            else:  # a log gets only the line at the end
                yield from repeated
        self._done(stage, f"{len(items)} images")

    @contextmanager
    def spread(self, stage: str, total: int) -> Iterator[Callable[[int, int], None]]:
        """Enclose work on a cluster; show how much is done, over how many workers."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("over {task.fields[workers]} workers"),
            TimeRemainingColumn(),
        )
        bar = RichProgress(
            *columns, console=self.console, transient=True, disable=not self.console.is_terminal
        )
        most = 0

        def tell(done: int, workers: int) -> None:
            nonlocal most
            most = max(most, workers)
            bar.update(task, completed=done, workers=workers)

        with SilentProgress.step(self, stage), bar:
            task = bar.add_task(stage, total=total, workers=0)
            yield tell
        self._done(stage, f"{total} over {most}" if most else REUSED)

    @contextmanager
    def counted(self, stage: str) -> Iterator[Callable[[int, int], None]]:
        """Enclose work that tells how much it has done, and of how much (0: unknown)."""
        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        bar = RichProgress(
            *columns, console=self.console, transient=True, disable=not self.console.is_terminal
        )
        with super().step(stage), bar:
            task = bar.add_task(stage, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total or None)
        self._done(stage, "")

    def _done(self, stage: str, note: str) -> None:
        self.console.print(f"  {stage:<28}{note:>12}{self.seconds[stage]:>9.1f} s", soft_wrap=True)
