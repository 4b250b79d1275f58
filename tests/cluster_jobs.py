"""Jobs for workers of the tests; these find this file by their PYTHONPATH."""

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from deploy.calibration.errors import DataError
from deploy.cluster.jobs import File, Slot, Work

OPENED: list[str] = []  # by this process


@dataclass(frozen=True)
class SquareJob:
    """Square numbers, each in some seconds; who did it and what was open stands in a log.

    Numbers from 10 on wait until ``gate`` is there, if it is given.
    """

    seconds: float
    log: str
    name: str = "a"
    gate: str = ""

    def open(self, slot: Slot) -> Work:
        made = slot.keep("costly", lambda: OPENED.append(self.name) or object())

        def work(item: int) -> bytes:
            time.sleep(self.seconds)
            while self.gate and item >= 10 and not Path(self.gate).exists():
                time.sleep(0.02)
            with Path(self.log).open("a") as log:
                where = f"{os.getpid()} {threading.get_ident()} {id(made)}"
                log.write(f"{self.name} {item} {where} {len(OPENED)} {slot.threads}\n")
            return str(item**2).encode()

        return work


@dataclass(frozen=True)
class FileJob:
    """Tell what files hold."""

    def open(self, slot: Slot) -> Work:
        def work(item: File) -> bytes:
            content = slot.path(item).read_bytes()
            if content == b"full":
                raise OSError(28, "No space left on device")
            if content == b"bad":
                raise DataError(f"{slot.path(item)} is bad")
            return content

        return work


@dataclass(frozen=True)
class DeadlyJob:
    """Take the worker's process down, once for each file that is not there yet, or ever."""

    folder: str
    always: bool = False

    def open(self, slot: Slot) -> Work:
        def work(item: int) -> bytes:
            mark = Path(self.folder, f"{item}.died")
            if self.always or not mark.exists():
                mark.touch()
                os.kill(os.getpid(), 9)
            return str(item).encode()

        return work
