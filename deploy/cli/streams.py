"""Standard output holds the result alone, whatever the libraries print there."""

import os
import sys
from contextlib import suppress


def keep_for_results() -> None:
    """Give Python's standard output a descriptor of its own, and descriptor 1 standard error's.

    The C++ of onnx and onnxsim prints its warnings on descriptor 1, some when the process ends; so
    this holds to its end. Nothing is done where ``sys.stdout`` is another file.
    """
    with suppress(AttributeError, OSError, ValueError):  # closed, or no file: as a test has them
        if sys.stdout.fileno() != 1:
            return
        sys.stdout.flush()
        own = os.dup(1)
        os.dup2(sys.stderr.fileno(), 1)
        old = sys.stdout
        sys.stdout = os.fdopen(
            own,
            "w",
            buffering=1 if old.line_buffering else -1,
            encoding=old.encoding,
            errors=old.errors,
        )
