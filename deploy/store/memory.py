"""Giving memory back: what a stage has freed is the system's again, not the allocator's."""

import ctypes
import gc
from contextlib import suppress
from pathlib import Path

LARGE_PAGES = 3 * 2**29 // 4096  # resident; below, a search for what is unreachable is not worth it


def give_back() -> None:
    """Free what is unreachable and return free memory to the system, where there is much.

    It needs Linux and glibc; elsewhere nothing is done.
    """
    with suppress(OSError, AttributeError, ValueError):
        if int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) > LARGE_PAGES:
            gc.collect()
            ctypes.CDLL(None).malloc_trim(0)
