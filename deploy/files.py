"""Files and folders that are written whole or not at all."""

import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from deploy.errors import DeployError

LOGGER = logging.getLogger("deploy")


def write_whole(path: Path, content: bytes | str) -> None:
    """Write ``content`` to ``path`` by way of a temporary file beside it and a rename.

    Whatever happens, ``path`` holds either what it held before or all of ``content``.

    Raises:
        DeployError: the folder cannot be made or written to, or the disk is full.
    """
    data = content.encode() if isinstance(content, str) else content
    _write(path, data)
    LOGGER.debug("wrote %s (%d bytes)", path, len(data))


def _write(path: Path, data: bytes) -> None:
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise DeployError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_folder_whole(path: Path, files: Mapping[str, bytes | str]) -> int:
    """Write a folder of ``files``, by their paths in it, in place of any that is there.

    It is filled under another name beside and then renamed. Returns the size in bytes.

    Raises:
        DeployError: it cannot be written, or ``path`` is a file.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        new, old = temporary / "new", temporary / "old"
        for name, content in files.items():
            _write(new / name, content.encode() if isinstance(content, str) else content)
        if path.exists():
            if not path.is_dir():
                raise DeployError(f"{path} cannot be written: there is a file of that name")
            path.rename(old)
        new.rename(path)
    except OSError as error:
        raise DeployError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        if temporary is not None:
            if (temporary / "old").exists() and not path.exists():
                (temporary / "old").rename(path)  # stopped between the two renames
            shutil.rmtree(temporary, ignore_errors=True)
    size = sum(len(c.encode() if isinstance(c, str) else c) for c in files.values())
    LOGGER.debug("wrote %s (%d files, %d bytes)", path, len(files), size)
    return size


def _umask() -> int:
    """Return the process's file mode mask; mkstemp ignores it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
