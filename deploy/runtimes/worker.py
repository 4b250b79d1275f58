"""A vendor's library in a process of its own: it may abort, hang or eat the memory, we do not.

The program reads a request, one line of JSON, and answers by one line: ``{"error": text}`` where it
fails (worker_loop.py). Arrays travel in files. It ends when its standard input does.
"""

import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from deploy.errors import DeployError

LOOP = Path(__file__).with_name("worker_loop.py")
LOG = "log.txt"
SHOWN = 200  # characters of an error or of the log's last line
GRACE_SECONDS = 5.0  # from the end of its answers to its own


class WorkerError(DeployError):
    """A vendor's library failed, or took its process down."""


class DeadWorkerError(WorkerError):
    """The process ended by itself."""


class Worker:
    """A running program that answers requests.

    Args:
        command: what to start.
        name: of the library, for messages.

    Attributes:
        folder: for the files of requests and answers; gone when the worker is. What the program
            writes to standard error is in ``log.txt``.
    """

    def __init__(self, command: Sequence[str], name: str) -> None:
        self.name = name
        self._directory = tempfile.TemporaryDirectory(prefix="deploy-")
        self.folder = Path(self._directory.name)
        with (self.folder / LOG).open("wb") as log:
            self._process = subprocess.Popen(
                [*command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=self.folder,
                start_new_session=True,  # Ctrl-C is ours to pass on: see _end
            )
        self._answers: queue.Queue[str] = queue.Queue()
        assert self._process.stdout is not None
        threading.Thread(
            target=_read, args=(self._process.stdout, self._answers), daemon=True
        ).start()
        self._finalizer = weakref.finalize(self, _end, self._process, self._directory)

    def ask(self, seconds: float, **request: Any) -> dict[str, Any]:
        """Return the answer to a request.

        Raises:
            WorkerError: there is an error, or none within ``seconds``.
            DeadWorkerError: the process ended.
        """
        assert self._process.stdin is not None
        with suppress(OSError):  # it has ended: the missing answer tells
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        try:
            line = self._answers.get(timeout=seconds)
        except queue.Empty:
            self.close()
            raise WorkerError(f"{self.name} gave no answer within {seconds:g} s") from None
        if not line:
            reason = self._last_words()
            self.close()
            raise DeadWorkerError(reason)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            self.close()
            raise WorkerError(" ".join(str(answer["error"]).split())[:SHOWN])
        return answer

    def log(self) -> str:
        """Return what the program has written to standard error so far."""
        return (self.folder / LOG).read_text(encoding="utf-8", errors="replace")

    def close(self) -> None:
        """End the process and remove the folder."""
        self._finalizer()

    def _last_words(self) -> str:
        """Say how the process ended."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE_SECONDS)
        code = self._process.poll()
        if code == -signal.SIGKILL:
            return f"{self.name} was killed: out of memory?"
        lines = [line for line in self.log().splitlines() if line.strip()]
        said = f": {' '.join(lines[-1].split())[:SHOWN]}" if lines else ""
        if code is not None and code < 0:
            return f"{self.name} crashed ({_signal_name(-code)}){said}"
        return f"{self.name} ended its process (exit code {code}){said}"


def answering(python: Sequence[str], program: Path) -> list[str]:
    """Return the command by which a program's requests are answered (worker_loop.py).

    Args:
        python: an interpreter, and the option by which no folder of ours is on its path.
        program: has ``REQUESTS``, functions by name, and imports nothing of ours.
    """
    return [*python, str(LOOP), str(program)]


def _read(stream: IO[str], answers: "queue.Queue[str]") -> None:
    """Hand on each line, and an empty text when there will be none any more."""
    with suppress(OSError, ValueError):  # closed while we read
        for line in stream:
            answers.put(line)
    answers.put("")


def _end(process: "subprocess.Popen[str]", directory: "tempfile.TemporaryDirectory[str]") -> None:
    """End a program and all that it started, at once."""
    with suppress(OSError):
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        with suppress(OSError):
            if stream is not None:
                stream.close()
    directory.cleanup()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
