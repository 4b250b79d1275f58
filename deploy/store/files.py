"""Files and folders that are written whole or not at all."""

import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from deploy.calibration.processes import is_running
from deploy.errors import DeployError

LOGGER = logging.getLogger("deploy")
# Of a file under way: hidden, with its final name and the process that writes it.
_TEMPORARY = re.compile(r"^\.(?P<name>.+)\.(?P<process>\d+)-[^.]+$")


def write_whole(path: Path, content: bytes | str) -> None:
    """Write ``content`` to ``path`` by way of a temporary file beside it and a rename.

    Whatever happens, ``path`` holds either what it held before or all of ``content``.

    Raises:
        DeployError: the folder cannot be made or written to, or the disk is full.
    """
    data = content.encode() if isinstance(content, str) else content
    with replacing(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield an empty file to write to; once it is whole and on the disk it becomes ``path``.

    Raises:
        DeployError: the folder cannot be made or written to, or the disk is full.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=_prefix(path), dir=path.parent)
        temporary = Path(name)
        os.close(descriptor)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
        LOGGER.debug("wrote %s (%d bytes)", path, path.stat().st_size)
    except OSError as error:
        raise DeployError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_folder_whole(path: Path, files: Mapping[str, bytes | str]) -> int:
    """Write a folder of ``files``, by their paths in it, in place of any that is there.

    Returns the size in bytes.

    Raises:
        DeployError: as :func:`replacing_folder`.
    """
    with replacing_folder(path) as new:
        for name, content in files.items():
            with replacing(new / name) as file:
                file.write_bytes(content.encode() if isinstance(content, str) else content)
    size = sum(len(c.encode() if isinstance(c, str) else c) for c in files.values())
    LOGGER.debug("wrote %s (%d files, %d bytes)", path, len(files), size)
    return size


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a folder to fill, beside ``path``; once it is whole it takes that name.

    Raises:
        DeployError: it cannot be written, or ``path`` is a file.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=_prefix(path), dir=path.parent))
        new, old = temporary / "new", temporary / "old"
        new.mkdir()
        yield new
        if path.exists():
            if not path.is_dir():
                raise DeployError(f"{path} cannot be written: there is a file of that name")
            path.rename(old)
        new.rename(path)
    except OSError as error:
        raise DeployError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        if temporary is not None:
            _remove_folder(temporary, path)


def remove_stale(folder: Path) -> None:
    """Remove from ``folder`` what killed processes had under way there.

    Those that still run keep theirs. A folder that was being replaced is put back.
    """
    for temporary in folder.iterdir() if folder.is_dir() else ():
        found = _TEMPORARY.match(temporary.name)
        if found is None or is_running(int(found["process"])):
            continue
        with suppress(OSError):  # another's, or on a disk that cannot be written: it does no harm
            if temporary.is_dir():
                _remove_folder(temporary, folder / found["name"])
            else:
                temporary.unlink(missing_ok=True)


def _remove_folder(temporary: Path, path: Path) -> None:
    """Remove the folder in which ``path`` was being written; between two renames, restore it."""
    if (temporary / "old").exists() and not path.exists():
        (temporary / "old").rename(path)
    shutil.rmtree(temporary, ignore_errors=True)


def _prefix(path: Path) -> str:
    """Return how the name of a temporary file begins: see ``_TEMPORARY``."""
    return f".{path.name}.{os.getpid()}-"


def _umask() -> int:
    """Return the process's file mode mask; mkstemp ignores it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
