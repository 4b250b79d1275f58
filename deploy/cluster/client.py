"""The command's side: a cluster that does a job's items and brings the results back."""

import hashlib
import pickle
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.calibration.record import file_sha256
from deploy.cluster.connect import connected, find_place
from deploy.cluster.facts import difference, doubt, facts
from deploy.cluster.jobs import Envelope, File, Job
from deploy.cluster.journal import FOLDER, Journal
from deploy.cluster.run import Run
from deploy.cluster.slots import describe
from deploy.errors import ClusterError
from deploy.progress import LOGGER, Progress
from deploy.store.files import write_whole
from deploy.store.reuse import stage_key

if TYPE_CHECKING:
    import distributed
    import onnx

Results = Iterator[tuple[int, bytes]]


@contextmanager
def use_cluster(
    wanted: "Cluster | str | None", progress: Progress, *, ship: bool = False
) -> "Iterator[Cluster | None]":
    """Yield the cluster that a caller names, or already has; None for none.

    Args:
        wanted: an address, a scheduler's file or "local[:N]" (connect.py).
        progress: is told of what is waited for.
        ship: send workers the files that they lack.

    Raises:
        ClusterError: that is none of these.
        DeployError: Dask's distributed is not installed.
    """
    if wanted is None or isinstance(wanted, Cluster):
        yield wanted
        return
    place = find_place(wanted)
    with ExitStack() as stack:
        yield Cluster(place, lambda: stack.enter_context(connected(place)), progress, ship=ship)


class Cluster:
    """A Dask cluster, connected when it is first needed.

    Args:
        address: of its scheduler, for messages.
        connect: returns a connection.
        progress: is told of what is waited for.
        ship: send workers the files that they lack.
    """

    def __init__(
        self,
        address: str,
        connect: "Callable[[], distributed.Client]",
        progress: Progress,
        *,
        ship: bool = False,
    ) -> None:
        self.address, self.ship = address, ship
        self._connect, self._progress = connect, progress
        self._hashes: dict[Path, tuple[int, int, str]] = {}

    @cached_property
    def client(self) -> "distributed.Client":
        """The connection, once all workers have been looked at.

        Raises:
            ClusterError: no scheduler answers, or a worker's results would be others.
        """
        client = self._connect()
        self._check(client)
        return client

    def _check(self, client: "distributed.Client") -> None:
        """Wait for a worker and see that all that are there compute as this machine does."""
        if not client.nthreads():
            self._progress.note(f"{self.address} has no workers yet: waiting for the first")
            client.wait_for_workers(1)
        for worker, found in _describe(client).items():
            if isinstance(found, Exception):
                raise ClusterError(
                    f"worker {worker} cannot load deploy ({found}): install "
                    "'refinenet-deploy[cluster]' there"
                )
            if reason := difference(facts(), found[0]):
                raise ClusterError(f"worker {worker} {reason}")
            if reason := doubt(facts(), found[0]):
                LOGGER.warning("  worker %s %s: last bits may differ", worker, reason)

    @property
    def slots(self) -> int:
        """How many items are done at a time."""
        return int(sum(self.client.nthreads().values())) or 1

    def file(self, path: Path) -> File:
        """Return a file of this machine as jobs and items name it; raises DataError."""
        path = path.absolute()
        with suppress(OSError):
            status = path.stat()
            mark = status.st_mtime_ns, status.st_size
            if self._hashes.get(path, ())[:2] != mark:
                self._hashes[path] = (*mark, file_sha256(path))
            return File(path=str(path), sha256=self._hashes[path][2])
        return File(path=str(path), sha256=file_sha256(path))  # says what is wrong

    def put(self, folder: Path, content: bytes, suffix: str) -> File:
        """Return content that is in no file yet as one, in a network's folder for the time being.

        Raises:
            DeployError: it cannot be written.
        """
        sha256 = hashlib.sha256(content).hexdigest()
        path = (folder / FOLDER / f"{sha256}{suffix}").absolute()
        if not path.is_file():
            write_whole(path, content)
        return File(path=str(path), sha256=sha256)

    def put_graph(self, folder: Path, model: "onnx.ModelProto") -> File:
        """Return a graph as :meth:`put` does its content."""
        return self.put(folder, model.SerializeToString(deterministic=True), ".onnx")

    def map(
        self, job: Job, items: Sequence[Any], stage: str, progress: Progress, folder: Path
    ) -> Results:
        """Yield number and result of each item once, in whatever order they are done.

        What a run before this one has done of the same job is not done again.

        Args:
            job: what is done; a worker's slot opens it once.
            items: picklable values whose ``repr`` tells them apart.
            stage: for the progress.
            progress: shows how many are done, and over how many workers.
            folder: of the network: where results are kept until :func:`forget`.

        Raises:
            ClusterError: the scheduler is lost, a worker lacks a file, or its results would be
                others.
            DeployError, ModelError, DataError, CalibrationError: as the job raises.
        """
        key = stage_key("cluster", job=repr(job))
        keys = [hashlib.sha256(repr(item).encode()).hexdigest()[:32] for item in items]
        pickle.dumps(job)  # what cannot travel is a bug to be seen here
        journal = Journal(folder, key)
        with progress.spread(stage, len(items)) as tell:
            try:
                known = dict(journal.read())
                waiting = {n for n, name in enumerate(keys) if name not in known}
                done = [number for number in range(len(items)) if number not in waiting]
                yield from ((number, known[keys[number]]) for number in done)
                if not waiting:
                    tell(len(items), 0)
                    return
                envelope = Envelope(key=key, job=job, facts=facts(), threads=self._threads())
                run = Run(self, envelope, items, waiting, tell)
                for number, result in run.results():
                    journal.write(keys[number], result)
                    yield number, result
            finally:
                journal.close()

    def _threads(self) -> dict[str, int]:
        """Return the threads that a slot of each worker may use: slots x threads = cores.

        Workers of one machine that may use the same cores share them.
        """
        slots: dict[str, int] = self.client.nthreads()
        found = {worker: d for worker, d in _describe(self.client).items() if isinstance(d, tuple)}
        place = {worker: (_host(worker), cores) for worker, (_, _, cores) in found.items()}
        sharing = {p: sum(slots.get(w, 0) for w in place if place[w] == p) for p in place.values()}
        return {
            worker: max(1, count // max(1, sharing[place[worker]]))
            for worker, (_, count, _) in found.items()
        }


def in_order(results: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Yield results by their numbers, 0 first, each as soon as all before it are there."""
    early: dict[int, bytes] = {}
    following = 0
    for number, result in results:
        early[number] = result
        while following in early:
            yield following, early.pop(following)
            following += 1


def forget(folder: Path) -> None:
    """Remove what a cluster's runs have kept in a network's folder: its artifact is written."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def _describe(client: "distributed.Client") -> dict[str, Any]:
    """Return what each worker says of itself, or the error that keeps it from saying it."""
    found: dict[str, Any] = client.run(describe, on_error="return")
    return found


def _host(worker: str) -> str:
    return worker.rpartition(":")[0]
