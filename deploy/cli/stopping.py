"""SIGINT and SIGTERM end a call as an exception does: what is half-written is removed."""

import functools
import signal
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

INSIST_SECONDS = 1.0
SOON_SECONDS = 0.001
# torch's C++ calls these, and much of it lets no exception through: one aborts the process.
CALLED_BACK = (
    "torch/_compile.py",
    "torch/_library/simple_registry.py",
    "torch/_ops.py",
    "torch/utils/_stats.py",
)
SIGNALS = {signal.SIGINT: "Interrupted", signal.SIGTERM: "Stopped by SIGTERM"}


class Stopped(BaseException):
    """A signal asks the process to end: what is half-written is removed on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = signal.Signals(number)


@contextmanager
def stoppable() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into :class:`Stopped`, wherever they hit.

    An error that comes after one is its consequence, and ends as the stop: in a library's first
    import, say, whose own ``except module.Error`` then fails for want of ``module.Error``.
    """
    asked: list[int] = []
    before = {number: signal.getsignal(number) for number in (*SIGNALS, signal.SIGALRM)}
    hook = sys.unraisablehook
    for number in SIGNALS:  # not one that is ignored, as by nohup
        if before[number] in (signal.default_int_handler, signal.SIG_DFL):
            signal.signal(number, functools.partial(_stop, asked))
    sys.unraisablehook = functools.partial(_unraisable, hook)
    try:
        yield
    except Exception as error:
        if asked:
            raise Stopped(asked[0]) from error
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = hook


def _stop(asked: list[int], number: int, frame: types.FrameType | None) -> None:
    asked.append(number)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # timeout(1) sends it twice
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C ends it at once
    signal.signal(signal.SIGALRM, functools.partial(_insist, number))
    signal.setitimer(signal.ITIMER_REAL, INSIST_SECONDS, INSIST_SECONDS)
    _raise_unless_called_back(number, frame)


def _raise_unless_called_back(number: int, frame: types.FrameType | None) -> None:
    """Raise the stop; where C++ may abort of it, try again a moment later."""
    while frame is not None:
        if frame.f_code.co_filename.endswith(CALLED_BACK):
            signal.setitimer(signal.ITIMER_REAL, SOON_SECONDS, INSIST_SECONDS)
            return
        frame = frame.f_back
    raise Stopped(number)


def _insist(number: int, _alarm: int, frame: types.FrameType | None) -> None:
    """Raise again what compiled code or a finalizer has swallowed."""
    if not isinstance(sys.exception(), Stopped):  # else it is on its way: nothing cuts cleaning up
        _raise_unless_called_back(number, frame)


def _unraisable(before: Callable[[Any], object], what: "sys.UnraisableHookArgs") -> None:
    """Say nothing of a stop that hit a finalizer, out of which nothing is raised: it insists."""
    if not isinstance(what.exc_value, Stopped):
        before(what)
