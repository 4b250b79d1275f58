"""Graphs in onnxruntime on the CPU: a program that onnxruntime_arm.py starts. Nothing of ours.

Requests: ``{"do": "open", "model", "threads", "optimized", "disabled"}``: the graph's file, that of
the graph as it runs, names of optimizations that shall not; ``{"do": "run", "input", "output"}``:
the files of arrays.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime

ERRORS = 3  # a severity of onnxruntime's logger
SESSIONS: list[onnxruntime.InferenceSession] = []


def open_(model: str, threads: int, optimized: str, disabled: list[str]) -> dict[str, Any]:
    """Load a graph; the answer has its inputs and outputs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = ERRORS
    options.optimized_model_filepath = optimized
    session = onnxruntime.InferenceSession(
        model, options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled
    )
    SESSIONS[:] = [session]
    return {
        "version": onnxruntime.__version__,
        "inputs": [[port.name, port.type, port.shape] for port in session.get_inputs()],
        "outputs": [[port.name, port.type, port.shape] for port in session.get_outputs()],
    }


def run(input: str, output: str) -> dict[str, Any]:  # noqa: A002 - the request's key
    """Run the graph on the array in one file, write its first output to another."""
    (session,) = SESSIONS
    feed = {session.get_inputs()[0].name: np.load(input)}
    np.save(output, session.run([session.get_outputs()[0].name], feed)[0])
    return {}


def main() -> None:
    """Answer requests until there are no more; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    does: dict[str, Callable[..., dict[str, Any]]] = {"open": open_, "run": run}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = does[request.pop("do")](**request)
        except Exception as error:  # onnxruntime's exceptions share no public base class
            answer = {"error": str(error)}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
