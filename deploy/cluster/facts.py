"""What the bytes of a result depend on besides its inputs: code, libraries, processor."""

import platform
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version

from deploy.store.environment import describe_environment
from deploy.store.reuse import code_sha256, libraries

CODE, INSTRUCTIONS, BLAS, PROCESSOR = "deploy's code", "instruction sets", "BLAS kernels", "CPU"
MAY_DIFFER = frozenset({PROCESSOR})


@cache
def facts() -> dict[str, str]:
    """Return this process's, by name."""
    from threadpoolctl import threadpool_info

    environment = describe_environment()
    kernels = {str(i.get("architecture")) for i in threadpool_info() if i["user_api"] == "blas"}
    return {
        CODE: code_sha256()[:12],
        "Python": ".".join(map(str, sys.version_info[:2])),
        "distributed": version("distributed"),
        **libraries(),
        INSTRUCTIONS: ", ".join([platform.machine(), *environment["instruction_sets"]]),
        BLAS: ", ".join(sorted(kernels)),
        PROCESSOR: environment["cpu"],
    }


def difference(own: Mapping[str, str], other: Mapping[str, str]) -> str | None:
    """Return why another machine's results may be others than this one's, or None.

    What only one of the two has plays no part: a runtime that is needed is asked for when it is.
    """
    for name in own.keys() & other.keys() - MAY_DIFFER:
        if own[name] != other[name]:
            what = f"has {name} {other[name]}, this machine {own[name]}"
            if name in (INSTRUCTIONS, BLAS):
                return f"{what}: floats differ in their last bits; start the command on one like it"
            return f"{what}: install the same on both"
    return None


def doubt(own: Mapping[str, str], other: Mapping[str, str]) -> str | None:
    """Return what may, but need not, make last bits differ, or None."""
    if own[PROCESSOR] == other[PROCESSOR]:
        return None
    return f"has another processor ({other[PROCESSOR]}) than this machine ({own[PROCESSOR]})"
