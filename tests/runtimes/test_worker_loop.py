import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from deploy.errors import GraphError
from deploy.runtimes.remote import run_in
from deploy.runtimes.worker import DeadWorkerError, Worker, WorkerError, answering

PROGRAM = """\
import sys

import numpy as np

print("a library says hello")


def run(image, result, factor="2"):
    print("a library works")
    np.save(result, float(factor) * np.load(image))
    return {}


def fail():
    raise ValueError("two\\nlines")


REQUESTS = {"run": run, "fail": fail, "arguments": lambda: {"argv": sys.argv[1:]}}
"""


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    found = Worker(answering([sys.executable, "-P"], program), "The library")
    yield found
    found.close()


def test_an_array_goes_there_and_comes_back_though_libraries_print(worker: Worker) -> None:
    image = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    np.testing.assert_array_equal(run_in(worker, "net.onnx", 60, image), 2 * image)
    np.testing.assert_array_equal(run_in(worker, "net.onnx", 60, image, factor="3"), 3 * image)
    assert "a library says hello\na library works" in worker.log()


def test_program_sees_no_arguments_of_the_loop(worker: Worker) -> None:
    assert worker.ask(60, do="arguments") == {"argv": []}


def test_what_a_function_raises_is_one_line(worker: Worker) -> None:
    with pytest.raises(WorkerError, match=r"^two lines$"):
        worker.ask(60, do="fail")


def test_what_fails_names_library_and_graph(worker: Worker) -> None:
    with pytest.raises(GraphError, match=r"^The library cannot run net\.onnx: two lines$"):
        run_in(_Failing(worker), "net.onnx", 60, np.zeros(1, np.float32))


class _Failing:
    """A worker whose run is the program's failure."""

    def __init__(self, worker: Worker) -> None:
        self.worker, self.name, self.folder = worker, worker.name, worker.folder

    def ask(self, seconds: float, **_request: object) -> dict[str, object]:
        return self.worker.ask(seconds, do="fail")


def test_program_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import there_is_no_such_library\n")
    worker = Worker(answering([sys.executable, "-P"], program), "The library")
    with pytest.raises(DeadWorkerError, match="No module named 'there_is_no_such_library'"):
        worker.ask(60, do="run")
