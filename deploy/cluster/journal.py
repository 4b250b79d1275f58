"""The results of items that are done, on disk as they come: a run that is cut off goes on there."""

import base64
import binascii
import hashlib
from collections.abc import Iterator
from pathlib import Path

from deploy.errors import ClusterError

FOLDER = ".cluster"  # in a network's folder; gone once its artifact is written


class Journal:
    """A file of one line a result: the item's key, a hash of the rest, the result in base64.

    Args:
        folder: of the network.
        key: of the job; another job's results are in another file.

    Raises:
        ClusterError: it cannot be written.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.path = folder / FOLDER / f"{key}.results"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab")
            if self._file.tell():
                self._file.write(b"\n")  # after what may be half a line
        except OSError as error:
            raise self._unwritable(error) from None

    def read(self) -> Iterator[tuple[str, bytes]]:
        """Yield key and result of each line that is whole."""
        with self.path.open("rb") as file:
            for line in file:
                key, _, rest = line.strip().partition(b" ")
                digest, _, text = rest.partition(b" ")
                if digest == _digest(key, text):
                    try:
                        yield key.decode(), base64.b64decode(text, validate=True)
                    except (binascii.Error, UnicodeDecodeError):
                        continue

    def write(self, key: str, result: bytes) -> None:
        """Add a result; raises ClusterError."""
        text = base64.b64encode(result)
        try:
            self._file.write(b" ".join([key.encode(), _digest(key.encode(), text), text]) + b"\n")
            self._file.flush()
        except OSError as error:
            raise self._unwritable(error) from None

    def close(self) -> None:
        """Close the file; it stays."""
        self._file.close()

    def _unwritable(self, error: OSError) -> ClusterError:
        return ClusterError(f"{self.path} cannot be written: {error.strerror or error}")


def _digest(key: bytes, text: bytes) -> bytes:
    return hashlib.sha256(key + b" " + text).hexdigest()[:16].encode()
