"""Standard output of a real process holds the result alone, whatever the libraries print."""

import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from graphs import refine_model
from onnx import TensorProto, helper

WARNING = "Model contains experimental ops: Affine"  # onnx's C++, on descriptor 1


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """Return a file of which onnx itself warns whenever it checks it."""
    model = refine_model()
    logits = model.graph.output[0].name
    model.graph.node.append(helper.make_node("Affine", [logits], ["x"], alpha=1.0, beta=0.0))
    model.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, None, None])
    )
    onnx.save(model, tmp_path / "mine.onnx")
    return tmp_path / "mine.onnx"


def deploy(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deploy", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_what_libraries_print_goes_to_standard_error(graph: Path) -> None:
    check = "import onnx, sys; onnx.checker.check_model(onnx.load(sys.argv[1]))"
    alone = subprocess.run(
        [sys.executable, "-c", check, str(graph)], capture_output=True, text=True, check=True
    )
    assert WARNING in alone.stdout  # else this test shows nothing
    done = deploy("inspect", str(graph), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["path"] == str(graph)
    assert WARNING in done.stderr


def test_an_error_leaves_standard_output_empty(graph: Path) -> None:
    done = deploy("simplify", str(graph), "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"GraphError: {graph}: " in done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_closed_outputs_do_no_harm(closed: str) -> None:
    command = f"{sys.executable} -m deploy models --json {closed}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert done.returncode == 0
