"""What each accelerator's own arithmetic makes of its graph, and of its vendor's own INT8."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from deploy.report.figures import number
from deploy.targets import ACCELERATORS, int8_name, vendor_name

EMULATED_NOTE = (
    "A chip's name says that it was emulated: its integers are the chip's, its time is not."
)
FIGURES = (
    *("miou", "miou_drop", "agreement", "sqnr_db", "int8_convolutions", "size_bytes"),
    "footprint",
)


def accelerator_rows(measured: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each graph that was measured in the runtime of its own accelerator.

    Args:
        measured: a variant's validation results, one for each runtime.

    Returns:
        Plain values, in the order of the targets: ``target``, ``runtime``, ``soc``, ``images``,
        ``protocol``, ``date``, ``command``, the figures, and ``vendor``: the same figures of what
        the toolchain's own quantizer makes of the same float graph and images, or None.
    """
    order = list(ACCELERATORS)
    rows = [row for result in measured for row in _rows(result)]
    return sorted(rows, key=lambda row: order.index(row["target"]))


def accelerator_lines(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what a report's table of accelerators says, line by line.

    A row gives one line, and one more for the vendor's own quantizer where that was measured.
    """
    lines = []
    for name, variant in content["variants"].items():
        for row in variant["accelerators"]:
            shown = {"model": name, "target": row["target"], "images": row["images"]}
            shown |= {"runtime": row["runtime"] + (f", {row['soc']}" if row["soc"] else "")}
            quantizers = {"deploy": row, "its own": row["vendor"]}
            for quantizer, figures in quantizers.items():
                if figures is not None:
                    counts = " of ".join(map(str, figures["int8_convolutions"] or ["–"]))
                    memory = say_memory(figures["footprint"])
                    extra = {"quantizer": quantizer, "convolutions": counts, "memory": memory}
                    lines.append(shown | {key: figures[key] for key in FIGURES} | extra)
    return lines


def say_memory(footprint: Mapping[str, int] | None) -> str:
    """Say what memory a compiled graph takes; an empty text where its compiler told nothing."""
    if not footprint:
        return ""
    parts = {
        "DDR read": "ddr_read_bytes",
        "written": "ddr_write_bytes",
        "on-chip memory": "fast_memory_bytes",
        "context": "context_bytes",
    }
    said = [
        f"{title} {number(footprint[key], 1, 1e6)} MB"
        for title, key in parts.items()
        if key in footprint
    ]
    return ", ".join(said)


def _rows(result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    results = result["results"]
    for name, accelerator in ACCELERATORS.items():
        is_own = accelerator.executed_by == result["runtime"] and not accelerator.on_arm
        if not is_own or int8_name(name) not in results:
            continue
        yield {
            "target": name,
            "runtime": result["runtime"],
            "soc": result["soc"],
            "images": result["dataset"]["images"],
            "protocol": result["dataset"]["protocol"],
            "date": result["environment"]["date"],
            "command": result["command"],
            **_figures(results[int8_name(name)]),
            "vendor": _vendors(results.get(vendor_name(name))),
        }


def _vendors(result: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if result is None else _figures(result)


def _figures(result: Mapping[str, Any]) -> dict[str, Any]:
    return {key: result.get(key) for key in FIGURES}
