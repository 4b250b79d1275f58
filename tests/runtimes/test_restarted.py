"""A worker whose program dies is started once more; twice is an error, a hang at once."""

import sys
import time
from pathlib import Path

import pytest

from deploy.runtimes.restarted import RestartedWorker
from deploy.runtimes.worker import WorkerError

# It counts its starts in a file, and dies of "die" while there are fewer than asked for.
PROGRAM = """\
import json, os, sys, time
path = sys.argv[1]
starts = int(open(path).read() or 0) + 1 if os.path.exists(path) else 1
open(path, "w").write(str(starts))
opened = None
for line in sys.stdin:
    request = json.loads(line)
    if request["do"] == "open":
        opened = request["what"]
    if request["do"] == "die" and starts <= request["times"]:
        os.abort()
    if request["do"] == "hang":
        time.sleep(60)
    answer = {"error": "no such node"} if request["do"] == "fail" else {"opened": opened}
    print(json.dumps(answer | {"starts": starts}), flush=True)
"""


@pytest.fixture
def worker(tmp_path: Path) -> RestartedWorker:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "starts")]
    return RestartedWorker(command, "The library")


def test_one_death_is_answered_all_the_same(worker: RestartedWorker) -> None:
    assert worker.open(30, do="open", what="a graph") == {"opened": "a graph", "starts": 1}
    (worker.folder / "kept").touch()
    # the second program has been asked to open the same before
    assert worker.ask(30, do="die", times=1) == {"opened": "a graph", "starts": 2}
    assert (worker.folder / "kept").is_file()
    assert worker.ask(30, do="more") == {"opened": "a graph", "starts": 2}
    folder = worker.folder
    worker.close()
    assert not folder.exists()


def test_two_deaths_of_one_request_are_an_error(worker: RestartedWorker) -> None:
    with pytest.raises(WorkerError, match=r"^The library crashed \(SIGABRT\)"):
        worker.ask(30, do="die", times=2)


def test_an_error_or_a_hang_starts_nothing_anew(worker: RestartedWorker, tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"^no such node$"):
        worker.ask(30, do="fail")
    assert (tmp_path / "starts").read_text() == "1"


def test_it_is_not_waited_for_forever(worker: RestartedWorker, tmp_path: Path) -> None:
    worker.ask(30, do="more")
    start = time.monotonic()
    with pytest.raises(WorkerError, match=r"^The library gave no answer within 0.2 s$"):
        worker.ask(0.2, do="hang")
    assert time.monotonic() - start < 20
    assert (tmp_path / "starts").read_text() == "1"
