"""A worker that is started once more where its process ends by itself: one crash is no verdict."""

import logging
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy.runtimes.worker import DeadWorkerError, Worker

LOGGER = logging.getLogger("deploy")


class RestartedWorker:
    """A program that is asked something first whenever it is started.

    Args:
        command: what to start.
        name: of the library, for messages.

    Attributes:
        folder: for files; it stays when the program is started anew.
    """

    def __init__(self, command: Sequence[str], name: str) -> None:
        self.name = name
        directory = tempfile.TemporaryDirectory(prefix="deploy-")
        self.folder = Path(directory.name)
        self._finalizer = weakref.finalize(self, directory.cleanup)
        self._command = [*command]
        self._first: tuple[float, dict[str, Any]] | None = None
        self._worker = Worker(self._command, name)

    def open(self, seconds: float, **request: Any) -> dict[str, Any]:
        """Return the answer to a request that is asked again of a program that is started anew.

        Raises:
            WorkerError: as :meth:`deploy.runtimes.worker.Worker.ask`.
        """
        answer = self._worker.ask(seconds, **request)
        self._first = seconds, request
        return answer

    def ask(self, seconds: float, **request: Any) -> dict[str, Any]:
        """Return the answer to a request; where the program dies of it, of another one.

        Raises:
            WorkerError: there is an error, or no answer within ``seconds``, or it dies again.
        """
        try:
            return self._worker.ask(seconds, **request)
        except DeadWorkerError as error:
            LOGGER.warning("  %s: it is started again", error)
            self._worker = Worker(self._command, self.name)
            if self._first is not None:
                self._worker.ask(self._first[0], **self._first[1])
            return self._worker.ask(seconds, **request)

    def log(self) -> str:
        """Return what the program has written to standard error since it was started."""
        return self._worker.log()

    def close(self) -> None:
        """End the process and remove the folder."""
        self._worker.close()
        self._finalizer()
