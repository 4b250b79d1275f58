"""One measurement in a process of its own: ``python -m deploy.bench.apart``.

Prints ``{"seconds", "start_mib", "peak_mib"}`` on its last line.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from deploy.bench.quantizers import QUANTIZERS
from deploy.bench.work import Stage, prepare_work
from deploy.calibration import find_voc_root, read_split
from deploy.errors import USER_ERRORS, DeployError
from deploy.quantize.calibration_source import CalibrationSource


def run_apart(*arguments: str) -> dict[str, Any]:
    """Return the figures of a measurement in a process of its own.

    Memory is null where the system does not tell it.

    Raises:
        DeployError: it failed; the message is its last line.
    """
    command = [sys.executable, "-m", "deploy.bench.apart", *arguments]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    if result.returncode:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        reason = "it was killed: out of memory?" if result.returncode == -9 else last[:200]
        raise DeployError(f"{' '.join(arguments[:2])} failed: {reason}")
    figures: dict[str, Any] = json.loads(result.stdout.strip().splitlines()[-1])
    return figures


def work_apart(stage: Stage, path: Path, count: int) -> dict[str, Any]:
    """Do a stage on the first ``count`` images of val."""
    return run_apart("work", stage, str(path), str(count))


def quantize_apart(name: str, fp32: Path, int8: Path, count: int) -> dict[str, Any]:
    """Quantize a graph with ``count`` images of train, evenly spaced over its list."""
    return run_apart("quantize", name, str(fp32), str(int8), str(count))


def _main(what: str, name: str, *arguments: str) -> dict[str, Any]:
    count = int(arguments[-1])
    start_mib = _memory_mib("VmRSS")
    if what == "work":
        samples = read_split(find_voc_root(), "val")[:count]
        seconds = prepare_work(Stage(name), Path(arguments[0]))(samples)
    else:
        source = CalibrationSource.find(None, "train", count)
        start = time.perf_counter()
        QUANTIZERS[name].quantize(Path(arguments[0]), Path(arguments[1]), source)
        seconds = time.perf_counter() - start
    # not getrusage's figure: that one starts at the parent's memory
    return {"seconds": seconds, "start_mib": start_mib, "peak_mib": _memory_mib("VmHWM")}


def _memory_mib(key: str) -> float | None:
    """Return what Linux says of this process's resident memory: VmRSS now, VmHWM at most."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return None
    lines = [line for line in status.splitlines() if line.startswith(f"{key}:")]
    return int(lines[0].split()[1]) / 1024 if lines else None


if __name__ == "__main__":
    try:
        print(f"\n{json.dumps(_main(*sys.argv[1:]))}")
    except USER_ERRORS as error:
        sys.exit(f"{type(error).__name__}: {error}")
