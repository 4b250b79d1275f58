"""Why a quantized graph is not faster than the float one."""

from collections.abc import Collection, Sequence
from pathlib import Path

from deploy.errors import GraphError
from deploy.graph.reading import read_graph
from deploy.runtimes.runner import Execution, Runtime
from deploy.targets import ACCELERATORS, executed_in, lint
from deploy.targets.accelerator import Accelerator

INTEGER_PRODUCTS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}


ARM = {"asimddp", "i8mm"}
ON_ARM = {Runtime.ONNXRUNTIME: Runtime.ONNXRUNTIME_ARM}  # runtimes with forms of their own there


NAMES = 3  # of nodes, in a sentence


def explain(
    path: Path,
    runtime: Runtime,
    form: str,
    target: str | None,
    execution: Execution,
    instructions: Collection[str],
) -> list[str]:
    """Return why a quantized graph is not faster than the float one, the likeliest first.

    Args:
        path: of the graph.
        runtime: that executed it.
        form: of its quantization.
        target: that its metadata name.
        execution: what the runtime made of it.
        instructions: the processor's, as deploy/store/environment.py names them.
    """
    found = []
    if not INTEGER_PRODUCTS.intersection(instructions):
        found.append(
            "this processor has no instructions for 8-bit products (VNNI or AMX on x86, dot "
            "products on ARM)"
        )
    if form == "dynamic":
        found.append("its scales are found anew while it runs: quantize it with deploy quantize")
    found += _wrong_form(path, runtime, target, bool(ARM.intersection(instructions)))
    if names := execution.float_convolutions:
        count = f"{len(names)} of {execution.convolutions} convolutions compute in float"
        found.append(f"{count}: {_first(names)}")
    if execution.float_nodes:
        parts = [f"{len(n)} {kind} ({_first(n)})" for kind, n in execution.float_nodes.items()]
        found.append(f"other nodes compute in float: {', '.join(parts)}")
    if execution.conversions > 2:  # more than one where it begins and one where it ends
        found.append(f"{execution.conversions} conversions between float and integers, every run")
    return found or [
        "all its nodes compute in integers: it is too small to gain, or the machine is busy "
        "(more --runs)"
    ]


def _wrong_form(path: Path, runtime: Runtime, target: str | None, is_arm: bool) -> list[str]:
    """Return whether a graph has another form than the runtime computes in integers."""
    own = _own_accelerator(runtime, is_arm=is_arm).name
    made_for = ACCELERATORS.get(target or "")
    if made_for is not None and own in {made_for.name, *made_for.also_for}:
        return []
    if made_for is not None:
        return [
            f"its Q/DQ are in the form of target {target}: deploy quantize --int8 --target {own} "
            f"makes what {runtime.value} computes in integers"
        ]
    try:
        broken = dict.fromkeys(finding.rule for finding in lint(read_graph(path), own))
    except GraphError:
        return []  # integer operators: they run as they are
    if not broken:
        return []
    return [
        f"it breaks rules of target {own} ({', '.join(broken)}): deploy lint {path} --target {own} "
        "names each node"
    ]


def _own_accelerator(runtime: Runtime, *, is_arm: bool) -> Accelerator:
    """Return the accelerator that a runtime is on this processor."""
    return executed_in(ON_ARM.get(runtime, runtime) if is_arm else runtime)[0]


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMES]) + (", …" if len(names) > NAMES else "")
