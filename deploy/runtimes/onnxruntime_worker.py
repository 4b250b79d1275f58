"""Graphs in onnxruntime on the CPU: a program that onnxruntime_arm.py starts. Nothing of ours.

Requests: ``{"do": "open", "model", "threads", "optimized", "disabled"}``: the graph's file, that of
the graph as it runs, names of optimizations that shall not; ``{"do": "run", "image", "result"}``:
the files of arrays.
"""

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


def run(image: str, result: str) -> dict[str, Any]:
    """Run the graph on the array in one file, write its first output to another."""
    (session,) = SESSIONS
    feed = {session.get_inputs()[0].name: np.load(image)}
    np.save(result, session.run([session.get_outputs()[0].name], feed)[0])
    return {}


REQUESTS = {"open": open_, "run": run}
