"""What there is to say of a processor whose 8-bit kernels saturate by default."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from deploy.report.figures import interval, number, percent
from deploy.runtimes.open import BACKENDS
from deploy.runtimes.runner import Runtime
from deploy.targets.ort_avx2 import ORT_AVX2

SAFE_TARGET = ORT_AVX2.name  # its weights fit 16-bit sums


def say_exact(runtime: str, options: str, costs: Sequence[float]) -> str:
    """Say that the processor's kernels saturate, what avoids it, and what that costs.

    Args:
        runtime: in which graphs ran.
        options: what it was told so that they do not saturate.
        costs: latency so, over that with default options, of each graph of which it is known.
    """
    text = (
        f"This processor lacks 8-bit dot products (VNNI): {runtime}'s kernels saturate by default, "
        "which the graphs cannot help. "
    )
    if not BACKENDS[Runtime(runtime)].exact_in_8_bits:
        return (
            f"{text}Accuracy is that of the same arithmetic in float ({options}); deploy here what "
            f"cannot saturate: deploy quantize --int8 --target {SAFE_TARGET}."
        )
    ends = dict.fromkeys(f"{cost:.2f}" for cost in (min(costs), max(costs))) if costs else ()
    takes = f", which take {' to '.join(ends)} times as long" if ends else ""
    return (
        f"{text}Figures are of exact kernels{takes}: set the session entry {options} in the "
        f"application, too, or take deploy quantize --int8 --target {SAFE_TARGET}."
    )


def sentences(contents: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what there is to say of variants' or files' results, as validation keeps them."""
    costs: dict[tuple[str, str], list[float]] = {}
    said = []
    for name, content in contents.items():
        runtime, options = content["runtime"], content.get("exact_options")
        if not options:
            continue
        known = costs.setdefault((runtime, options), [])
        for graph, result in content["results"].items():
            found = result.get("default_options")
            if not found:
                continue
            if result["latency_ms"] and found["latency_ms"]:
                known.append(result["latency_ms"] / found["latency_ms"])
            label = graph if graph == name else f"{name} {graph}"
            said.append(
                f"{label} in {runtime} with default options on this processor: "
                f"{', '.join(_figures(found))}."
            )
    return [say_exact(*ran, known) for ran, known in costs.items()] + said


def _figures(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield what there is of a graph's figures, in words."""
    if found["miou"] is not None:
        yield f"mIoU {percent(found['miou'])}%"
    if found["miou_drop"] is not None:
        yield f"drop {interval(found['miou_drop'])} points"
    if found["agreement"] is not None:
        yield f"agreement {percent(found['agreement'])}%"
    if found["sqnr_db"] is not None:
        yield f"{number(found['sqnr_db'])} dB"
