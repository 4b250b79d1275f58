"""One job on the workers: what is under way, what is done again, what is given up."""

import asyncio
import queue
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol
from uuid import uuid4

from deploy.cluster.jobs import Answer, Envelope, File
from deploy.cluster.slots import execute, receive
from deploy.errors import ClusterError
from deploy.progress import LOGGER

if TYPE_CHECKING:
    import distributed

POLL_SECONDS = 1.0
RECONNECT_SECONDS = 15.0
PATIENCE_SECONDS = 5.0  # without any result, before an item is given to a second worker
PATIENCE_FACTOR = 3.0  # and of the longest item so far
DELIVERIES = 20  # of one file, in a row, that a worker loses again


class _Cluster(Protocol):
    address: str
    ship: bool

    @property
    def client(self) -> "distributed.Client": ...


class Run:
    """The items of a job that are not done yet.

    Each is counted once: a worker that dies takes nothing along but its time, as Dask gives its
    items to others; one that is much slower than the rest, or hangs, has its items done by another,
    and the first result counts.

    Args:
        cluster: where.
        envelope: the job.
        items: all of them.
        waiting: the numbers of those to do.
        tell: is told how many are done, and over how many workers.
    """

    def __init__(
        self,
        cluster: _Cluster,
        envelope: Envelope,
        items: Sequence[Any],
        waiting: set[int],
        tell: Callable[[int, int], None],
    ) -> None:
        self.cluster, self.client, self.envelope = cluster, cluster.client, envelope
        self.items, self.waiting, self.tell = items, waiting, tell
        self.name = f"deploy-{uuid4().hex}"
        self.unfit: dict[str, str] = {}
        self.longest = 0.0
        self.twice: set[int] = set()
        self._numbers: dict[Any, int] = {}  # of the futures that are under way
        self._done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._sent: Counter[tuple[str, File]] = Counter()
        self._submitted = 0

    def results(self) -> Iterator[tuple[int, bytes]]:
        """Yield number and result of each item; at the end nothing of the job is left queued.

        A connection that is lost and comes back, to the same scheduler or to a new one at its
        address, costs what was under way.

        Raises:
            ClusterError: it does not come back; or a worker lacks a file, or computes otherwise.
        """
        try:
            while self.waiting:
                try:
                    yield from self._until_lost()
                except (CancelledError, asyncio.CancelledError, OSError, TimeoutError):
                    if not self._is_back():
                        raise self._lost() from None
        finally:
            self._cancel(list(self._numbers))

    def _until_lost(self) -> Iterator[tuple[int, bytes]]:
        """Yield what comes while there is a connection."""
        self._numbers.clear()
        self.twice.clear()
        self._submit(sorted(self.waiting))
        workers, asked = len(self.client.nthreads()), time.monotonic()
        last = asked
        while self.waiting:
            for number, answer in self._answers():
                result = self._take(number, answer)
                if result is not None:
                    last = time.monotonic()
                    yield number, result
            if time.monotonic() - asked > POLL_SECONDS:
                workers, asked = len(self.client.nthreads()), time.monotonic()
            self.tell(len(self.items) - len(self.waiting), workers)
            if time.monotonic() - last > self._patience():
                self._give_to_others()
                last = time.monotonic()

    def _is_back(self) -> bool:
        """Wait for Dask, which connects again by itself; say whether it could."""
        end = time.monotonic() + RECONNECT_SECONDS
        while time.monotonic() < end:
            time.sleep(0.2)
            if self.client.status == "running":
                with suppress(CancelledError, asyncio.CancelledError, OSError, TimeoutError):
                    self.client.nthreads()
                    return True
            if self.client.status == "closed":
                return False
        return False

    def _submit(self, numbers: Sequence[int], workers: Iterable[str] | None = None) -> None:
        """Queue items; on ``workers``, or on all that are fit."""
        chosen = None if workers is None else list(workers)
        if chosen is None and self.unfit:
            chosen = [worker for worker in self.client.nthreads() if worker not in self.unfit]
            if not chosen:
                worker, reason = next(iter(self.unfit.items()))
                raise ClusterError(f"worker {worker} {reason}")
        self._submitted += 1
        futures = self.client.map(
            execute,
            [self.items[number] for number in numbers],
            key=[(self.name, number, self._submitted) for number in numbers],
            envelope=self.envelope,
            workers=chosen,
            allow_other_workers=False,
            pure=False,
        )
        for number, future in zip(numbers, futures, strict=True):
            self._numbers[future] = number
            self.client.loop.add_callback(self._fetch, future)

    async def _fetch(self, future: Any) -> None:
        """Wait for a result in the client's own thread: one that hangs keeps no other waiting."""
        try:
            outcome = await self.client.gather(future, asynchronous=True)
        except (Exception, asyncio.CancelledError) as error:
            outcome = error
        self._done.put((future, outcome))

    def _answers(self) -> Iterator[tuple[int, Answer]]:
        """Yield what has come, waiting for it a while."""
        outcomes = []
        try:
            outcomes.append(self._done.get(timeout=POLL_SECONDS))
            while True:
                outcomes.append(self._done.get_nowait())
        except queue.Empty:
            pass
        for future, outcome in outcomes:
            number = self._numbers.pop(future, None)  # the worker need not keep it any longer
            if number is None:
                continue
            if not isinstance(outcome, Answer):
                self._raise(outcome, number)
            yield number, outcome

    def _take(self, number: int, answer: Answer) -> bytes | None:
        """Return an item's result; None where it must be done again, or was done before."""
        if number not in self.waiting:
            return None
        if answer.error is not None:
            raise answer.error
        if answer.unfit is not None:
            if answer.worker not in self.unfit:
                LOGGER.warning("  worker %s %s: left out", answer.worker, answer.unfit)
            self.unfit[answer.worker] = answer.unfit
            self._submit([number])
            return None
        if answer.lacks is not None:
            self._deliver(answer.lacks, answer.worker)
            self._submit([number])
            return None
        self.waiting.discard(number)
        self.longest = max(self.longest, answer.seconds)
        if number in self.twice:
            self._cancel([future for future, n in self._numbers.items() if n == number])
        return answer.result

    def _deliver(self, file: File, worker: str) -> None:
        """Send a worker what it lacks, once; raises ClusterError where that is not wanted."""
        if not self.cluster.ship:
            raise ClusterError(
                f"worker {worker} has no {file.path} of this content: put it where the worker sees "
                "it under the same path, or pass --ship"
            )
        self._sent[worker, file] += 1
        if self._sent[worker, file] == 1 or self._sent[worker, file] > DELIVERIES:
            if self._sent[worker, file] > DELIVERIES:
                raise ClusterError(f"worker {worker} does not keep {file.path}: is its disk full?")
            try:
                content = Path(file.path).read_bytes()
            except OSError as error:
                raise ClusterError(f"{file.path} cannot be read: {error.strerror}") from None
            self.client.run(receive, file, content, workers=[worker], on_error="ignore")

    def _patience(self) -> float:
        """Return how long no result may come before items are given to other workers as well."""
        return max(PATIENCE_SECONDS, PATIENCE_FACTOR * self.longest) if self.longest else 1e9

    def _give_to_others(self) -> None:
        """Queue what waits a second time, on the workers that have nothing to do."""
        busy = self.client.processing()
        idle = [worker for worker, keys in busy.items() if not keys and worker not in self.unfit]
        again = sorted(self.waiting - self.twice)
        if idle and again:
            self.twice |= set(again)
            self._submit(again, idle)

    def _cancel(self, futures: Sequence[Any]) -> None:
        for future in futures:
            self._numbers.pop(future, None)
        if futures and self.client.status == "running":
            self.client.cancel(futures)

    def _raise(self, error: BaseException, number: int) -> NoReturn:
        """Raise what Dask says of an item."""
        from distributed import KilledWorker

        if isinstance(error, KilledWorker):
            raise ClusterError(
                f"{self.items[number]} was under way on each of several workers that died: out of "
                "memory?"
            )
        raise error

    def _lost(self) -> ClusterError:
        done = len(self.items) - len(self.waiting)
        return ClusterError(
            f"the scheduler at {self.cluster.address} is lost, {done} of {len(self.items)} were "
            "done and are kept: start it and run the same command again, which goes on from there"
        )
