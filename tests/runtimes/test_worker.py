"""A program that answers, fails, hangs or dies: what its user sees of it."""

import os
import sys
import time
from pathlib import Path

import pytest

from deploy.calibration.processes import is_running
from deploy.runtimes.worker import Worker, WorkerError

PROGRAM = """\
import json, os, signal, sys, time
print("started", file=sys.stderr, flush=True)
for line in sys.stdin:
    request = json.loads(line)
    what = request["do"]
    if what == "abort":
        print("free(): invalid pointer", file=sys.stderr, flush=True)
        os.abort()
    if what == "exit":
        sys.exit(3)
    if what == "memory":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "hang":
        time.sleep(60)
    answer = {"error": "no such\\n node"} if what == "fail" else {"pid": os.getpid()}
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def worker() -> Worker:
    return Worker([sys.executable, "-c", PROGRAM], "The library")


def wait_until_gone(process: int) -> bool:
    deadline = time.monotonic() + 5
    while is_running(process) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_running(process)


def test_it_answers_and_logs(worker: Worker) -> None:
    first, second = (worker.ask(30, do="pid")["pid"] for _ in range(2))
    assert first == second != os.getpid()
    assert worker.log() == "started\n"


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("fail", "no such node"),
        ("abort", r"The library crashed \(SIGABRT\): free\(\): invalid pointer"),
        ("exit", r"The library ended its process \(exit code 3\): started"),
        ("memory", "The library was killed: out of memory"),
    ],
)
def test_a_failure_is_one_line_and_leaves_nothing(worker: Worker, what: str, message: str) -> None:
    process, folder = worker.ask(30, do="pid")["pid"], worker.folder
    with pytest.raises(WorkerError, match=f"^{message}") as caught:
        worker.ask(30, do=what)
    assert "\n" not in str(caught.value)
    assert not folder.exists()
    assert wait_until_gone(process)


def test_it_is_not_waited_for_forever(worker: Worker) -> None:
    process = worker.ask(30, do="pid")["pid"]
    with pytest.raises(WorkerError, match=r"^The library gave no answer within 0.2 s$"):
        worker.ask(0.2, do="hang")
    assert wait_until_gone(process)


def test_the_process_goes_with_its_worker() -> None:
    worker = Worker([sys.executable, "-c", PROGRAM], "The library")
    process, folder = worker.ask(30, do="pid")["pid"], worker.folder
    del worker
    assert wait_until_gone(process)
    assert not folder.exists()


def test_a_program_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"^The library ended its process \(exit code 2\)"):
        Worker([sys.executable, str(tmp_path / "none.py")], "The library").ask(30, do="pid")
