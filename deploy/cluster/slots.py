"""On a worker: a slot opens a job once and does its items, one at a time.

A slot is one of the threads in which Dask runs a worker's tasks. What a job opens stays open until
another job comes, and what that one needs too (a session of the same graph) goes over to it.
"""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from deploy.calibration.errors import DataError
from deploy.calibration.record import file_sha256
from deploy.cluster.facts import difference, facts
from deploy.cluster.jobs import Answer, Envelope, File, Made, Work
from deploy.errors import USER_ERRORS, ClusterError

_THREAD = threading.local()
_BLAS: list[Any] = []  # the limit of this process's linear algebra, as long as it lives
_LOCK = threading.Lock()


class _LackingError(Exception):
    def __init__(self, file: File) -> None:
        super().__init__(file)
        self.file = file


class _Slot:
    """A thread of this worker: what it has open."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder  # of what was sent to this worker
        self.threads = 1
        self.key = ""
        self.work: Work | None = None
        self.shown: dict[str, str] = {}  # paths here -> those of the command
        self._kept: dict[str, Any] = {}
        self._used: set[str] = set()

    def open(self, envelope: Envelope, threads: int) -> Work:
        """Return what does the items of a job."""
        if self.work is None or self.key != envelope.key:
            self.work, self.key, self.threads = None, envelope.key, threads
            self._used, self.shown = set(), {}
            self.work = envelope.job.open(self)
            self._kept = {key: made for key, made in self._kept.items() if key in self._used}
        return self.work

    def path(self, file: File) -> Path:
        """Return where a file of that content is; raises _LackingError."""
        for path in (sent_path(self.folder, file), Path(file.path)):
            with suppress(DataError):
                if file_sha256(path) == file.sha256:
                    self.shown[str(path)] = file.path
                    return path
        raise _LackingError(file)

    def keep(self, key: str, make: Callable[[], Made]) -> Made:
        """Return what was made under that key; else make it."""
        key = f"{key} {self.threads}"
        self._used.add(key)
        if key not in self._kept:
            self._kept[key] = make()
        made: Made = self._kept[key]
        return made


def execute(item: Any, *, envelope: Envelope) -> Answer:
    """Do an item of a job in this thread; a Dask task."""
    from distributed import get_worker

    worker = get_worker()
    begun = time.perf_counter()

    def answer(**content: Any) -> Answer:
        seconds = time.perf_counter() - begun
        return Answer(worker=worker.address, seconds=seconds, **content)

    if unfit := difference(envelope.facts, facts()):
        return answer(unfit=unfit)
    _one_thread_for_blas()
    slot = _THREAD.__dict__.setdefault("slot", _Slot(Path(worker.local_directory)))
    spare = min(envelope.threads.values(), default=1)  # of a worker that came later
    try:
        work = slot.open(envelope, envelope.threads.get(worker.address, spare))
        return answer(result=work(item))
    except _LackingError as error:
        return answer(lacks=error.file)
    except USER_ERRORS as error:
        text = str(error)
        for here, there in slot.shown.items():
            text = text.replace(here, there)
        return answer(error=type(error)(text))
    except (OSError, MemoryError) as error:  # this machine's, not the connection's
        reason = " ".join(str(error).split()) or type(error).__name__
        return answer(error=ClusterError(f"worker {worker.address} fails: {reason}"))


def receive(file: File, content: bytes, dask_worker: Any = None) -> None:
    """Keep a file that this worker lacks; it goes when the worker does. Run on a worker."""
    path = sent_path(Path(dask_worker.local_directory), file)
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(content)
    temporary.replace(path)


def describe(dask_worker: Any = None) -> tuple[dict[str, str], int, tuple[int, ...]]:
    """Return facts of a worker, how many cores it may use, and which. Run on a worker."""
    from dask.system import cpu_count  # as affinity and a container's quota allow

    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return facts(), cpu_count(), tuple(cores)


def sent_path(folder: Path, file: File) -> Path:
    """Return where a file is kept that was sent to a worker."""
    return folder / f"deploy-{file.sha256}{Path(file.path).suffix}"


def _one_thread_for_blas() -> None:
    """Keep numpy's linear algebra to one thread: all slots of a process share that number.

    Results that depend on it are computed with one in a command's own process, too.
    """
    from threadpoolctl import threadpool_limits

    with _LOCK:
        if not _BLAS:
            _BLAS.append(threadpool_limits(limits=1, user_api="blas"))
