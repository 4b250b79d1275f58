"""What happens to a job while its workers come, go, hang and lose the scheduler."""

import logging
import os
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_jobs import DeadlyJob, FileJob, SquareJob
from dask_processes import REPOSITORY, DaskProcesses, stop

from deploy.calibration.errors import DataError
from deploy.cluster.client import Cluster, forget, in_order
from deploy.cluster.journal import FOLDER
from deploy.errors import ClusterError
from deploy.progress import LOGGER, SilentProgress

ITEMS = list(range(40))
SQUARES = {number: str(number**2).encode() for number in ITEMS}

pytestmark = pytest.mark.slow
pytest.importorskip("distributed")


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[DaskProcesses]:
    processes = DaskProcesses(tmp_path)
    yield processes
    processes.end()


def job(folder: Path, seconds: float = 0.03, name: str = "a", gate: str = "") -> SquareJob:
    return SquareJob(seconds, str(folder / "log"), name, gate)


def run(cluster: Cluster, what: SquareJob, folder: Path) -> dict[int, bytes]:
    results = list(cluster.map(what, ITEMS, "squares", SilentProgress(), folder))
    assert max(Counter(number for number, _ in results).values()) == 1  # none is counted twice
    return dict(results)


def log(folder: Path, name: str = "a") -> list[list[str]]:
    lines = [line.split() for line in (folder / "log").read_text().splitlines()]
    return [line for line in lines if line[0] == name]


def test_workers_share_the_items_and_keep_open_what_they_opened(
    dask: DaskProcesses, tmp_path: Path
) -> None:
    dask.work(slots=2)
    dask.work()
    with dask.cluster() as cluster:
        assert cluster.slots == 3
        assert run(cluster, job(tmp_path), tmp_path) == SQUARES
        forget(tmp_path)
        assert run(cluster, job(tmp_path, name="b"), tmp_path) == SQUARES
    lines = log(tmp_path) + log(tmp_path, "b")
    slots = {(process, thread) for _, _, process, thread, *_ in lines}
    assert len(slots) == 3
    # each slot has opened once, and what the second job needs as well was still open
    assert {(line[2], line[3], line[4]) for line in lines} == {
        (*slot, made)
        for slot in slots
        for made in {m for _, _, *s, m, _, _ in lines if (*s,) == slot}
    }
    assert {int(line[5]) for line in lines} <= {1, 2}
    cores = len(os.sched_getaffinity(0))
    assert {int(line[6]) for line in lines} == {max(1, cores // 3)}


@pytest.mark.parametrize("seed", range(3))
def test_worker_killed_at_a_seeded_moment(dask: DaskProcesses, tmp_path: Path, seed: int) -> None:
    victim, _ = dask.work(), dask.work()
    generator, found = random.Random(seed), {}
    after, delay = generator.randrange(1, 25), generator.uniform(0, 0.03)
    with dask.cluster() as cluster:
        for number, result in cluster.map(
            job(tmp_path), ITEMS, "squares", SilentProgress(), tmp_path
        ):
            assert number not in found
            found[number] = result
            if len(found) == after:
                time.sleep(delay)
                victim.kill()
        assert found == SQUARES
        assert victim.wait() != 0
        assert cluster.slots == 1


def test_worker_added_mid_run_takes_part_and_one_that_hangs_holds_nothing_up(
    dask: DaskProcesses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.cluster.run.PATIENCE_SECONDS", 1.0)
    first = dask.work()
    with dask.cluster() as cluster:
        found, gate = {}, tmp_path / "gate"
        for number, result in cluster.map(
            job(tmp_path, gate=str(gate)), ITEMS, "squares", SilentProgress(), tmp_path
        ):
            assert number not in found
            found[number] = result
            if len(found) == 5:
                second = dask.work()
                gate.touch()
            if len({line[2] for line in log(tmp_path)}) == 2:
                stop(first)
        assert found == SQUARES
    assert str(second.pid) in {line[2] for line in log(tmp_path)}


def test_connection_that_comes_back_costs_what_was_under_way(
    dask: DaskProcesses, tmp_path: Path
) -> None:
    dask.work()
    found = {}
    with dask.cluster() as cluster:
        for number, result in cluster.map(job(tmp_path), ITEMS, "s", SilentProgress(), tmp_path):
            assert number not in found
            found[number] = result
            if len(found) == 7:
                comm = cluster.client.scheduler_comm.comm
                cluster.client.loop.add_callback(comm.abort)  # as a network does
    assert found == SQUARES


def test_scheduler_lost_is_one_line_and_the_next_run_goes_on(
    dask: DaskProcesses, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    dask.work()
    address, results = dask.address, []
    with dask.cluster() as cluster:
        running = cluster.map(job(tmp_path), ITEMS, "squares", SilentProgress(), tmp_path)
        results += [next(running) for _ in range(7)]
        dask.scheduler.kill()
        with pytest.raises(ClusterError) as error:
            results.extend(running)
    assert str(error.value).startswith(f"the scheduler at {address} is lost, ")
    assert capfd.readouterr() == ("", "")  # Dask says nothing
    kept = int(str(error.value).split(" is lost, ")[1].split(" of 40 ")[0])
    assert 7 <= kept < 40
    done_before = len(log(tmp_path))
    (other := tmp_path / "other").mkdir()
    again = DaskProcesses(other)
    try:
        again.work()
        with again.cluster() as cluster:
            assert run(cluster, job(tmp_path), tmp_path) == SQUARES
    finally:
        again.end()
    assert len(log(tmp_path)) - done_before == 40 - kept
    forget(tmp_path)
    assert not (tmp_path / FOLDER).exists()


def test_a_run_that_is_broken_off_leaves_nothing_queued(
    dask: DaskProcesses, tmp_path: Path
) -> None:
    dask.work()
    with dask.cluster() as cluster, dask.cluster() as other:
        assert other.slots == 1
        running = cluster.map(job(tmp_path), ITEMS, "squares", SilentProgress(), tmp_path)
        next(running)
        running.close()  # as an exception in its consumer does
        assert run(other, job(tmp_path, name="b"), tmp_path) == SQUARES
        assert len(log(tmp_path)) < 10


def test_files_are_sent_once_to_workers_that_lack_them(
    dask: DaskProcesses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dask.work()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    here = Path("/proc/self/cwd")  # of a worker that is another folder
    if not here.is_dir():
        pytest.skip("no /proc on this system")
    for name in ("one", "two"):
        Path(name).write_text(name)
    Path("bad").write_text("bad")
    progress = SilentProgress()
    with dask.cluster() as cluster:
        items = [cluster.file(here / name) for name in ("one", "two", "one")]
        with pytest.raises(ClusterError, match=r"worker tcp://127.* has no /proc/self/cwd/\w+ of"):
            list(cluster.map(FileJob(), items, "files", progress, tmp_path))
        forget(tmp_path)
    with dask.cluster(ship=True) as cluster:
        found = dict(cluster.map(FileJob(), items, "files", progress, tmp_path))
        assert found == {0: b"one", 1: b"two", 2: b"one"}
        sent = [path.name for path in (tmp_path / "worker-1").rglob("deploy-*")]
        assert sorted(sent) == sorted({f"deploy-{item.sha256}" for item in items})
        with pytest.raises(DataError, match=r"^/proc/self/cwd/bad is bad$"):
            list(cluster.map(FileJob(), [cluster.file(here / "bad")], "files", progress, tmp_path))


def other_code(folder: Path) -> Path:
    """Return a copy of deploy with a line more."""
    copy = folder / "copy"
    ignored = shutil.ignore_patterns("weights", "__pycache__")
    for name in ("deploy", "models", "calibration"):
        shutil.copytree(REPOSITORY / name, copy / name, ignore=ignored, symlinks=True)
    with (copy / "deploy" / "errors.py").open("a") as file:
        file.write("# another version\n")
    return copy


def test_worker_with_other_code_is_named(dask: DaskProcesses, tmp_path: Path) -> None:
    dask.work(cwd=other_code(tmp_path))
    with pytest.raises(ClusterError) as error, dask.cluster() as cluster:
        cluster.slots  # noqa: B018
    worker = "worker tcp://127.0.0.1:"
    assert str(error.value).startswith(worker)
    assert "has deploy's code" in str(error.value)


def test_worker_with_other_code_that_comes_late_is_left_out(
    dask: DaskProcesses, tmp_path: Path
) -> None:
    told: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    LOGGER.addHandler(handler)
    dask.work()
    found, gate = {}, tmp_path / "gate"
    with dask.cluster() as cluster:
        for number, result in cluster.map(
            job(tmp_path, gate=str(gate)), ITEMS, "squares", SilentProgress(), tmp_path
        ):
            found[number] = result
            if len(found) == 5:
                dask.work(cwd=other_code(tmp_path))
                gate.touch()
    LOGGER.removeHandler(handler)
    assert found == SQUARES
    assert len({line[2] for line in log(tmp_path)}) == 1
    assert [line for line in told if "has deploy's code" in line and "left out" in line] == told
    assert len(told) == 1


def test_item_that_kills_workers(dask: DaskProcesses, tmp_path: Path) -> None:
    for _ in range(2):
        dask.work()
    progress = SilentProgress()
    with dask.cluster() as cluster:
        found = dict(cluster.map(DeadlyJob(str(tmp_path)), [1], "deaths", progress, tmp_path))
    assert found == {0: b"1"}


def test_results_in_order() -> None:
    assert list(in_order(iter([(2, b"c"), (0, b"a"), (1, b"b")]))) == [
        (0, b"a"),
        (1, b"b"),
        (2, b"c"),
    ]


def test_waits_are_told(dask: DaskProcesses, tmp_path: Path) -> None:
    notes: list[str] = []

    class Noting(SilentProgress):
        def note(self, text: str) -> None:
            notes.append(text)

    from deploy.cluster.client import use_cluster

    threading.Thread(target=lambda: (time.sleep(0.5), dask.work())).start()
    with use_cluster(dask.address, Noting()) as cluster:
        assert cluster is not None
        assert cluster.slots == 1
    assert notes == [f"{dask.address} has no workers yet: waiting for the first"]


def test_failure_of_a_workers_machine_is_one_line(dask: DaskProcesses, tmp_path: Path) -> None:
    dask.work()
    (tmp_path / "full").write_text("full")
    with dask.cluster() as cluster:
        items = [cluster.file(tmp_path / "full")]
        with pytest.raises(ClusterError, match=r"^worker tcp://\S+ fails: .*No space left"):
            list(cluster.map(FileJob(), items, "files", SilentProgress(), tmp_path))
