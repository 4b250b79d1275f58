"""A real scheduler and real workers on the loopback interface, each a process to be disturbed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from deploy.cluster.client import Cluster, use_cluster
from deploy.progress import SilentProgress

REPOSITORY = Path(__file__).parent.parent
PATIENCE = 120.0


class DaskProcesses:
    """A scheduler and its workers; they end with the test."""

    def __init__(self, folder: Path, *, protocol: str = "tcp", options: Mapping[str, str] = {}):
        self.folder = folder
        self.file = folder / "cluster.json"
        self.environment = {**os.environ, **options, "PYTHONPATH": str(REPOSITORY / "tests")}
        self.processes: list[subprocess.Popen[bytes]] = []
        self.scheduler = self._start(
            "scheduler",
            *("--scheduler-file", str(self.file), "--protocol", protocol),
            *("--host", "127.0.0.1", "--port", "0", "--no-dashboard"),
        )
        wait_for(self.file.is_file)

    @property
    def address(self) -> str:
        return str(json.loads(self.file.read_text())["address"])

    def work(self, slots: int = 1, cwd: Path = REPOSITORY) -> subprocess.Popen[bytes]:
        """Start a worker and wait until it has joined."""
        name = f"worker-{len(self.processes)}"
        log = self.folder / f"{name}.log"
        process = self._start(
            "worker",
            *("--scheduler-file", str(self.file), "--nthreads", str(slots), "--no-nanny"),
            *("--host", "127.0.0.1", "--no-dashboard", "--memory-limit", "0", "--name", name),
            *("--local-directory", str(self.folder / name)),
            cwd=cwd,
        )
        wait_for(lambda: b"Registered to" in log.read_bytes())
        return process

    def _start(
        self, kind: str, *arguments: str, cwd: Path = REPOSITORY
    ) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *arguments]
        path = self.folder / f"{kind}-{len(self.processes)}.log"
        with path.open("wb") as log:
            process = subprocess.Popen(
                command, cwd=cwd, env=self.environment, stdout=log, stderr=log
            )
        self.processes.append(process)
        return process

    @contextmanager
    def cluster(self, *, ship: bool = False) -> Iterator[Cluster]:
        """Yield a connection, as a command has it."""
        with use_cluster(str(self.file), SilentProgress(), ship=ship) as cluster:
            assert cluster is not None
            yield cluster

    def end(self) -> None:
        for process in reversed(self.processes):
            process.kill()
            process.wait()


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until a function returns true."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it has not come about"
        time.sleep(0.05)


def stop(process: "subprocess.Popen[bytes]") -> None:
    """Let a process hang."""
    process.send_signal(signal.SIGSTOP)
