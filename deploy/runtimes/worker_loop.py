"""What every worker's program is run by, in whatever Python: ``worker_loop.py PROGRAM``.

The program's ``REQUESTS`` are functions by name; a request, one line of JSON, has a name as ``do``
and the arguments, and gets one line as answer: what the function returns, or ``{"error": text}``.
Nothing of ours is imported. Before the program is, standard output becomes standard error: what
libraries print is no answer.
"""

import importlib.util
import json
import os
import sys
from collections.abc import Callable
from typing import Any


def main(program: str) -> None:
    """Answer requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    requests = load(program)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = requests[request.pop("do")](**request)
        except Exception as error:  # libraries raise what they like
            answer = {"error": str(error)}
        print(json.dumps(answer), file=answers, flush=True)


def load(program: str) -> dict[str, Callable[..., dict[str, Any]]]:
    """Return the functions that a program has."""
    spec = importlib.util.spec_from_file_location("program", program)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, Callable[..., dict[str, Any]]] = module.REQUESTS
    return found


if __name__ == "__main__":
    sys.argv = sys.argv[1:]  # libraries may look at it
    main(sys.argv[0])
