"""What each accelerator's own arithmetic makes of its graph, and of its vendor's own INT8."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from deploy.report.figures import interval, number, percent
from deploy.runtimes.runner import Runtime
from deploy.targets import ACCELERATORS, executed_in, int8_name, vendor_name

EMULATED_NOTE = (
    "A chip's name says that it was emulated: its integers are the chip's, its time is not."
)
FIGURES = (
    *("miou", "miou_drop", "agreement", "sqnr_db", "int8_convolutions", "size_bytes"),
    *("footprint", "device"),
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
    """Return what a report's table of accelerators says, a line for each target."""
    return [
        {
            "model": name,
            "target": row["target"],
            "runtime": row["runtime"] + (f", {row['soc']}" if row["soc"] else ""),
            "images": row["images"],
            "memory": say_memory(row["footprint"]),
            "device": say_device(row["device"]),
            "size_bytes": row["size_bytes"],
            "miou": _beside(percent, row, "miou"),
            "drop": _beside(interval, row, "miou_drop"),
            "agreement": _beside(percent, row, "agreement"),
            "sqnr": _beside(number, row, "sqnr_db"),
            "convolutions": _beside(_counts, row, "int8_convolutions"),
        }
        for name, variant in content["variants"].items()
        for row in variant["accelerators"]
    ]


def _beside(say: Callable[[Any], str], row: Mapping[str, Any], key: str) -> tuple[str, str | None]:
    """Return a figure of ours and the vendor's, None where that was not measured."""
    return say(row[key]), None if row["vendor"] is None else say(row["vendor"][key])


def _counts(counts: Sequence[int] | None) -> str:
    return " of ".join(map(str, counts)) if counts else "–"


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


def say_device(device: Mapping[str, float] | None) -> str:
    """Say what is told of a device itself; an empty text where nothing is."""
    said = []
    if device and "estimated_ms" in device:
        said.append(f"{number(device['estimated_ms'], 2)} ms an image by the compiler's estimate")
    if device and "images" in device:
        sqnr = f", {number(device['sqnr_db'])} dB" if "sqnr_db" in device else ""
        said.append(
            f"a closer simulation agrees in {percent(device['agreement'])}% of the labels{sqnr} "
            f"({device['images']:g} images)"
        )
    return "; ".join(said)


def _rows(result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    results = result["results"]
    for name in (accelerator.name for accelerator in executed_in(Runtime(result["runtime"]))):
        if int8_name(name) not in results:
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
