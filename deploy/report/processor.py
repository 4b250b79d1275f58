"""What there is to say of a processor whose 8-bit kernels saturate by default."""

from collections.abc import Iterator, Mapping
from typing import Any

from deploy.report.figures import interval, number, percent
from deploy.runtimes.open import BACKENDS
from deploy.runtimes.runner import Runtime
from deploy.targets.ort_avx2 import ORT_AVX2

SAFE_TARGET = ORT_AVX2.name  # its weights fit 16-bit sums


def say_exact(runtime: str, options: str, cost: float | None) -> str:
    """Say that the processor's kernels saturate, what avoids it, and what that costs.

    Args:
        runtime: in which graphs ran.
        options: what it was told so that they do not saturate.
        cost: latency so, over that with default options; None if it is not known.
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
    takes = f", which takes {cost:.2f} times as long" if cost is not None else ""
    return (
        f"{text}Figures are of exact kernels{takes}: set the session entry {options} in the "
        f"application, too, or take deploy quantize --int8 --target {SAFE_TARGET}."
    )


def sentences(name: str, content: Mapping[str, Any]) -> Iterator[str]:
    """Yield what there is to say of a variant's or a file's results, as validation keeps them."""
    if not content.get("exact_options"):
        return
    results = content["results"]
    differing = {graph: r for graph, r in results.items() if r.get("default_options")}
    costs = [
        r["latency_ms"] / r["default_options"]["latency_ms"]
        for r in differing.values()
        if BACKENDS[Runtime(content["runtime"])].exact_in_8_bits
    ]
    yield say_exact(content["runtime"], content["exact_options"], max(costs, default=None))
    for graph, result in differing.items():
        found = result["default_options"]
        label = graph if graph == name else f"{name} {graph}"
        yield (
            f"{label} in {content['runtime']} with default options on this processor: "
            f"{', '.join(_figures(found))}."
        )


def all_sentences(contents: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what there is to say of several results, by name, each sentence once."""
    said = [text for name, content in contents.items() for text in sentences(name, content)]
    return list(dict.fromkeys(said))


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
