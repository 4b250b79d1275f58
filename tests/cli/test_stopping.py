"""Signals end a call as an exception does, wherever they hit."""

import signal
import sys
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from deploy.cli.stopping import CALLED_BACK, INSIST_SECONDS, Stopped, stoppable


def test_a_stop_that_a_library_swallows_is_repeated() -> None:
    caught = []

    def swallow() -> None:
        with stoppable():
            try:
                signal.raise_signal(signal.SIGTERM)
            except BaseException as error:
                caught.append(error)
            time.sleep(60)

    with pytest.raises(Stopped) as stopped:
        swallow()
    assert len(caught) == 1
    assert stopped.value.number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_an_error_that_follows_a_stop_ends_as_the_stop() -> None:
    def import_half() -> None:  # as torch.export's `except torch._dynamo.exc.UserError` does
        with stoppable():
            half = types.ModuleType("half")
            try:
                signal.raise_signal(signal.SIGTERM)
            except half.Error as error:
                raise RuntimeError("cannot be imported") from error

    with pytest.raises(Stopped) as stopped:
        import_half()
    assert stopped.value.number == signal.SIGTERM
    assert isinstance(stopped.value.__cause__, AttributeError)


def test_an_error_without_a_stop_stays_what_it_is() -> None:
    with pytest.raises(ZeroDivisionError), stoppable():
        raise ZeroDivisionError


def test_cleaning_up_after_a_stop_is_not_cut() -> None:
    cleaned = []

    @contextmanager
    def cleaner() -> Iterator[None]:
        try:
            yield
        finally:
            time.sleep(2.5 * INSIST_SECONDS)
            cleaned.append("by a context")

    def work() -> None:
        with stoppable(), cleaner():
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                time.sleep(2.5 * INSIST_SECONDS)
                cleaned.append("by finally")

    with pytest.raises(Stopped):
        work()
    assert cleaned == ["by finally", "by a context"]


def told_of_finalizers(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return what will hold the type of every error that cannot be raised."""
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: told.append(what.exc_type))
    return told


def test_a_stop_in_a_finalizer_is_repeated_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    class Finalized:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    def work() -> None:
        with stoppable():
            Finalized()
            time.sleep(60)

    told = told_of_finalizers(monkeypatch)
    with pytest.raises(Stopped) as stopped:
        work()
    assert stopped.value.number == signal.SIGTERM
    assert told == []


def test_other_errors_of_finalizers_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Finalized:
        def __del__(self) -> None:
            raise ZeroDivisionError

    told = told_of_finalizers(monkeypatch)
    with stoppable():
        Finalized()
    assert told == [ZeroDivisionError]


@pytest.mark.parametrize("file", CALLED_BACK)
def test_stop_where_no_exception_may_pass_waits_until_it_may(file: str) -> None:
    # torch's dispatcher calls these files from C++, which may abort the process of what is raised
    code = compile("deep(20)\npassed.append(1)", f"/somewhere/{file}", "exec")
    passed: list[int] = []
    start = time.monotonic()

    def deep(calls: int) -> None:
        if calls:
            return deep(calls - 1)
        signal.raise_signal(signal.SIGTERM)
        return time.sleep(0.1)

    def run() -> None:
        with stoppable():
            exec(code, {"deep": deep, "passed": passed})
            time.sleep(5)

    with pytest.raises(Stopped):
        run()
    assert passed == [1]
    assert time.monotonic() - start < 1
