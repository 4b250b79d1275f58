"""Networks in turn: small ones are in memory together, of large ones one at a time."""

import tempfile
from collections.abc import Mapping
from typing import IO

import numpy as np

from deploy.calibration.preprocess import Float32Array

TOGETHER_BYTES = 100 * 2**20  # of files; together, all meet alike what the machine does meanwhile


def in_groups(sizes: Mapping[str, int]) -> list[list[str]]:
    """Return names in groups whose files have at most TOGETHER_BYTES, or that are of one name.

    Args:
        sizes: bytes of each network's file, in the order in which they are to be taken.
    """
    groups: list[list[str]] = [[]]
    held = 0
    for name, size in sizes.items():
        if groups[-1] and held + size > TOGETHER_BYTES:
            groups.append([])
            held = 0
        groups[-1].append(name)
        held += size
    return groups


class KeptLogits:
    """The logits of one network for every image, in a file that is gone in the end."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._shapes: list[tuple[tuple[int, ...], int]] = []

    def __enter__(self) -> "KeptLogits":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, logits: Float32Array) -> None:
        """Keep those of the next image."""
        self._shapes.append((logits.shape, self._file.seek(0, 2)))
        self._file.write(logits.tobytes())

    def __getitem__(self, number: int) -> Float32Array:
        """Return those of an image, by its number."""
        shape, offset = self._shapes[number]
        self._file.seek(offset)
        count = int(np.prod(shape))
        return np.frombuffer(self._file.read(4 * count), np.float32).reshape(shape)
