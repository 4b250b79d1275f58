"""Giving memory back: what a stage has freed is the system's again, not the allocator's."""

import ctypes
import gc
from contextlib import suppress


def give_back() -> None:
    """Free what is unreachable, and return free memory to the system where the C library can."""
    gc.collect()
    with suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)
