"""What a measurement depends on besides the graphs: hardware, threads, versions, date."""

import contextlib
import datetime
import os
import platform
import shlex
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    *("refinenet-deploy", "torch", "onnx", "onnxruntime", "onnxruntime-qnn", "openvino", "nncf"),
    *("ncnn", "ai-edge-litert", "ai-edge-quantizer", "onnxsim", "numpy", "pillow"),
)
INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")


def describe_environment() -> dict[str, Any]:
    """Return plain values for a report; what the system does not tell is left empty."""
    cpu_info = _read(Path("/proc/cpuinfo"))
    flags = set(_field(cpu_info, "flags").split()) | set(_field(cpu_info, "Features").split())
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cpu": _field(cpu_info, "model name") or platform.processor() or platform.machine(),
        "instruction_sets": [name for name in INSTRUCTION_SETS if name in flags],
        "threads": default_threads(),
        "memory_gib": _memory_gib(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": sys.version.split()[0],
        "versions": dict(_versions()),
    }


def command_line() -> str:
    """Return the command that this process is, as a person would type it again."""
    program = Path(sys.argv[0] or "python")
    name = "deploy" if program.name == "__main__.py" else program.name
    return shlex.join([name, *sys.argv[1:]])


def _versions() -> Iterator[tuple[str, str]]:
    """Yield name and version of the packages that are installed; not all must be."""
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            yield name, version(name)


def _memory_gib() -> float | None:
    kibibytes = _field(_read(Path("/proc/meminfo")), "MemTotal").split()
    return round(int(kibibytes[0]) / 2**20, 1) if kibibytes else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _field(text: str, name: str) -> str:
    """Return the value of the first ``name : value`` line."""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def default_threads() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
