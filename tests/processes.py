"""Real runs of the command line in processes of their own, to be disturbed.

They are forked from a server that has imported it: the seconds that take are paid once.
"""

import multiprocessing
import os
import re
import resource
import runpy
import signal
import sys
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import deploy.cli

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        *("deploy.cli", "deploy.pipeline.whole", "deploy.predict.predict", "deploy.bundle.build"),
        *("deploy.training.train", "onnxscript", "pytest", "torch.onnx"),
    ]
)
PROGRESS = re.compile(r"  |\d+/\d+  loss ")
READY = "  ready\n"  # in the log once a run has begun


def start(arguments: list[str], log: Path, file_limit: int | None = None) -> ForkServerProcess:
    """Start ``deploy ARGUMENTS``; what it prints goes to ``log``.

    ``file_limit``: bytes that a file may have, as on a disk that is full.
    """
    log.unlink(missing_ok=True)
    process = CONTEXT.Process(target=_run, args=(arguments, str(log), file_limit))
    process.start()
    return process


def run(arguments: list[str], log: Path, file_limit: int | None = None) -> tuple[int, list[str]]:
    """Run ``deploy ARGUMENTS`` to its end; returns the exit code and the lines but progress."""
    process = start(arguments, log, file_limit)
    process.join()
    return process.exitcode or 0, lines(log)


def lines(log: Path) -> list[str]:
    """Return the lines of standard error that tell of no progress."""
    text = log.with_suffix(".err").read_text().removeprefix(READY)
    return [line for line in text.splitlines() if not PROGRESS.match(line)]


def _run(arguments: list[str], log: str, file_limit: int | None) -> None:
    errors = os.open(Path(log).with_suffix(".err"), os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(errors, 2)
    os.dup2(os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), 1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    os.write(2, READY.encode())
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    sys.argv = ["deploy", *arguments]
    if arguments[0] == "contact-sheet":
        sys.argv.pop(0)
        runpy.run_module("deploy.predict.contact_sheet", run_name="__main__")
    else:
        deploy.cli.main()
