import io

from rich.console import Console

from deploy.progress import ConsoleProgress, SilentProgress


def test_console_progress_in_a_log_is_one_line_a_stage() -> None:
    stream = io.StringIO()
    progress = ConsoleProgress(Console(file=stream, highlight=False, width=80))
    assert list(progress.track([1, 2, 3], "calibrate x")) == [1, 2, 3]
    with progress.step("export x"):
        pass
    lines = stream.getvalue().splitlines()
    assert [line.split()[:2] for line in lines] == [["calibrate", "x"], ["export", "x"]]
    assert "3 images" in lines[0]
    assert list(progress.seconds) == ["calibrate x", "export x"]


def test_console_progress_on_a_terminal_draws_a_bar_and_leaves_the_line() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, highlight=False, width=80)
    assert list(ConsoleProgress(console).track([1, 2], "validate x")) == [1, 2]
    assert "━" in stream.getvalue()
    assert "2 images" in stream.getvalue().rpartition("━")[2]


def test_silent_progress_measures_and_shows_nothing() -> None:
    progress = SilentProgress()
    with progress.step("a"):
        pass
    assert list(progress.track([1], "b")) == [1]
    assert all(seconds >= 0 for seconds in progress.seconds.values())
    assert list(progress.seconds) == ["a", "b"]
