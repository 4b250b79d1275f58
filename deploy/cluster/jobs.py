"""What travels between a command and its workers: plain values, and files by their content."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True)
class File:
    """A file that a worker reads; what it holds is told by its hash, wherever it lies."""

    path: str = field(repr=False)  # absolute, on the machine of the command
    sha256: str


class Slot(Protocol):
    """One of a worker's threads, as a job sees it."""

    threads: int  # that it may use: slots x threads are the machine's cores

    def path(self, file: File) -> Path:
        """Return where a file of that content is on this machine."""
        ...

    def keep(self, key: str, make: Callable[[], Made]) -> Made:
        """Return what was made under that key, for this job or the one before; else make it."""
        ...


Work = Callable[[Any], bytes]  # an item -> its result


class Job(Protocol):
    """Work on many items that share what is costly to open.

    ``repr`` tells it from any other: large values are in files, which are known by their hashes.
    """

    def open(self, slot: Slot) -> Work:
        """Return what does an item; called once by each slot, on the worker."""
        ...


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """A job as a worker gets it."""

    key: str  # SHA-256 of the job and of all that its results depend on
    job: Job
    facts: Mapping[str, str]  # of the command's machine: see facts.py
    threads: Mapping[str, int]  # of a slot, by the address of its worker


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of an item: one of these, and who says so."""

    worker: str  # its address
    seconds: float
    result: bytes | None = None
    error: Exception | None = None  # that the user can mend
    lacks: File | None = None
    unfit: str | None = None  # why this worker's results would be others
