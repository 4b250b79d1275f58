"""Networks in LiteRT on the CPU: a program that litert.py starts. It imports nothing of ours.

Requests: ``{"do": "open", "model", "threads"}``; the answer has every operator with the types of
what it takes and gives; ``{"do": "run", "image", "result"}``: the files of arrays.
"""

from typing import Any

import ai_edge_litert
import numpy as np
from ai_edge_litert.interpreter import Interpreter

INTERPRETERS: list[Any] = []


def open_(model: str, threads: int) -> dict[str, Any]:
    """Load a network."""
    interpreter = Interpreter(model_path=model, num_threads=threads)
    types = {
        each["index"]: np.dtype(each["dtype"]).name for each in interpreter.get_tensor_details()
    }
    names = {each["index"]: each["name"] for each in interpreter.get_tensor_details()}
    operators = [
        {
            "type": each["op_name"],
            "name": names[each["outputs"][0]],
            "inputs": [types[index] for index in each["inputs"] if index in types],
            "output": types[each["outputs"][0]],
        }
        for each in interpreter._get_ops_details()
    ]
    interpreter.allocate_tensors()
    INTERPRETERS[:] = [interpreter]
    return {"version": ai_edge_litert.__version__, "operators": operators}


def run(image: str, result: str) -> dict[str, Any]:
    """Run the network on the image in one file, write what it gives to another."""
    (interpreter,) = INTERPRETERS
    (given,), (got,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.set_tensor(given["index"], np.load(image))
    interpreter.invoke()
    np.save(result, interpreter.get_tensor(got["index"]))
    return {}


REQUESTS = {"open": open_, "run": run}
