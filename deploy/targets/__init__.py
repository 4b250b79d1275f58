"""One file an accelerator: the form of its graph, its rules, what executes it, what it is given.

One QDQ graph cannot be the best for all: where one runtime wants a 32-bit bias, another refuses it.
To add one: its file here, its line in ``ACCELERATORS``, its tests, its section of docs/targets.md.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

import onnx

from deploy.errors import DeployError
from deploy.graph.profile import Profile
from deploy.lint.rules import Finding, check
from deploy.runtimes.runner import Runtime
from deploy.targets.accelerator import Accelerator, Toolbox
from deploy.targets.k230 import K230
from deploy.targets.litert import LITERT
from deploy.targets.ncnn import NCNN
from deploy.targets.openvino import OPENVINO
from deploy.targets.ort import ORT
from deploy.targets.ort_arm import ORT_ARM
from deploy.targets.ort_avx2 import ORT_AVX2
from deploy.targets.pow2 import POW2
from deploy.targets.qnn import QNN
from deploy.targets.rockchip import ROCKCHIP
from deploy.targets.sophgo import SOPHGO
from deploy.targets.tensorrt import TENSORRT
from deploy.targets.vacc import VACC

ACCELERATORS: Mapping[str, Accelerator] = MappingProxyType(
    {
        a.name: a
        for a in (
            *(ORT, ORT_AVX2, ORT_ARM, OPENVINO, TENSORRT, QNN, NCNN, LITERT),
            *(SOPHGO, ROCKCHIP, K230, POW2, VACC),
        )
    }
)
DEFAULT_TARGET = ORT.name
# Of those that do not quantize by themselves.
PROFILES: Mapping[str, Profile] = MappingProxyType(
    {name: a.profile for name, a in ACCELERATORS.items() if a.profile is not None}
)
# Of bundles, each with the accelerator whose INT8 graph it gets.
TOOLCHAINS: Mapping[str, tuple[Accelerator, Toolbox]] = MappingProxyType(
    {name: (a, toolbox) for a in ACCELERATORS.values() for name, toolbox in a.toolchains.items()}
)
Toolchain = StrEnum("Toolchain", {name.upper(): name for name in TOOLCHAINS})  # type: ignore[misc]
Toolchain.__doc__ = "What a bundle is for."
VENDOR = "-vendor"  # ends the name of a graph that another quantizer made
PRECISIONS = ("fp32", "fp16", "int8")


def int8_name(target: str) -> str:
    """Return the name of the INT8 graph for an accelerator."""
    return "int8" if target == DEFAULT_TARGET else f"int8-{target}"


def vendor_name(target: str) -> str:
    """Return the name of the INT8 graph that an accelerator's own quantizer makes."""
    return f"{int8_name(target)}{VENDOR}"


GRAPHS = (
    *PRECISIONS,
    *(int8_name(name) for name in PROFILES if name != DEFAULT_TARGET),
    *(vendor_name(name) for name, a in ACCELERATORS.items() if a.vendor),
)


def executed_in(runtime: Runtime) -> tuple[Accelerator, ...]:
    """Return those whose INT8 graphs a runtime executes as a device would, its own first."""
    found = [a for a in ACCELERATORS.values() if a.profile]
    own = [a for a in found if a.executed_by is runtime]
    return (*own, *(a for a in found if runtime in a.measured_in))


def graphs_for(runtime: Runtime) -> frozenset[str]:
    """Return the names of the INT8 graphs that a runtime executes as a device would."""
    names = {a.name for a in executed_in(runtime)}
    return frozenset(f(name) for name in names for f in (int8_name, vendor_name))


def find_accelerator(name: str) -> Accelerator:
    """Return an accelerator; raises DeployError if there is none of that name."""
    if name not in ACCELERATORS:
        raise DeployError(f"no target {name!r}: choose one of {', '.join(ACCELERATORS)}")
    return ACCELERATORS[name]


def find_profile(name: str) -> Profile:
    """Return an accelerator's profile; raises DeployError if there is none of that name."""
    profile = find_accelerator(name).profile
    if profile is None:
        raise DeployError(f"target {name} quantizes by itself: it has no rules for an INT8 graph")
    return profile


def lint(model: onnx.ModelProto, target: str, soc: str | None = None) -> list[Finding]:
    """Return every rule of an accelerator, or of a chip with one, that a QDQ graph breaks.

    Raises:
        DeployError: there is no such target, or it has no such chip.
        GraphError: as :func:`deploy.lint.rules.check`.
    """
    profile, accelerator = find_profile(target), find_accelerator(target)
    if soc is not None and soc not in accelerator.chips:
        known = ", ".join(accelerator.chips)
        remedy = f"choose one of {known}" if known else "leave --soc out"
        raise DeployError(f"target {target} has no chip {soc!r}: {remedy}")
    own = () if soc is None else accelerator.chips[soc]
    return check(model, profile, (*accelerator.rules, *own))
