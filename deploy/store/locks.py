"""One process at a time on a folder of artifacts."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from deploy.errors import DeployError
from deploy.progress import Progress
from deploy.store.files import remove_stale

LOCK = ".lock"
PATIENCE = 3600.0  # seconds that a process waits for another


@contextmanager
def hold(folder: Path, progress: Progress, patience: float = PATIENCE) -> Iterator[None]:
    """Keep other processes from writing to ``folder``, which is made; wait for one that does.

    The lock is the system's own: that of a process that dies is free at once. A process may hold
    it several times over. What killed processes left half-written is removed first, and a folder
    that is empty at the end.

    Args:
        folder: to be written to.
        progress: is told of a wait.
        patience: seconds to wait.

    Raises:
        DeployError: another process keeps the folder for longer, or it cannot be written to.
    """
    folder = folder.absolute()
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    lock = FileLock(folder / LOCK, is_singleton=True)
    try:
        _acquire(lock, folder, progress, patience)
        try:
            if lock.lock_counter == 1:
                remove_stale(folder)
            yield
        finally:
            if (
                lock.lock_counter == 1
            ):  # who waits for the file sees that it is gone, and tries anew
                (folder / LOCK).unlink(missing_ok=True)
            lock.release()
    finally:
        with suppress(OSError):  # the first that is not empty
            for each in made:
                each.rmdir()


def _acquire(lock: FileLock, folder: Path, progress: Progress, patience: float) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            progress.note(f"{folder} is in use by another run: waiting for its end")
            lock.acquire(timeout=patience)
    except Timeout:
        raise DeployError(
            f"{folder} is still in use by another run after {patience:.0f} s: wait for its end, or "
            "pass another folder with --out"
        ) from None
    except OSError as error:
        raise DeployError(f"{folder} cannot be written: {error.strerror or error}") from None
