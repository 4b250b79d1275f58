"""What changed since an earlier report, on standard output."""

from collections.abc import Mapping
from typing import Any

from deploy.cli.display import line, table
from deploy.report.figures import change

COLUMNS = ("model", "graph", "mIoU %", "drop", "agree %", "SQNR dB", "x torch", "MB")
LEFT = 2  # columns of text


def compared(comparison: Mapping[str, Any] | None) -> None:
    """Print every figure that changed, and what got worse; nothing without a comparison."""
    if comparison is None:
        return
    rows = [
        [name, graph, *_cells(figures)]
        for name, variant in comparison["variants"].items()
        for graph, figures in variant["graphs"].items()
    ]
    table(f"since {comparison['file']} of {comparison['date']}", COLUMNS, rows, left=LEFT)
    for name, variant in comparison["variants"].items():
        for graph in variant["added"]:
            line(f"{name} {graph}: new")
    for text, names in (("new", comparison["added"]), ("only there", comparison["removed"])):
        if names:
            line(f"{text}: {', '.join(names)}")
    for note in comparison["notes"]:
        line(f"note: {note}")
    for text in comparison["regressions"]:
        line(f"REGRESSION: {text}")
    if not comparison["regressions"]:
        line(f"no regression beyond {comparison['tolerance']:g} points")
    line("")


def _cells(figures: Mapping[str, Any]) -> list[str]:
    """Return the changes of one graph: old, new and difference, or the one value of both."""
    forms = {
        "miou": (2, 100.0),
        "miou_drop": (2, 100.0),
        "agreement": (2, 100.0),
        "sqnr_db": (1, 1.0),
        "speed": (2, 1.0),
        "size_bytes": (1, 1e-6),
    }
    return [change(figures[key]["old"], figures[key]["new"], *f) for key, f in forms.items()]
