"""Plots as SVG that stands in the page: its text is text, and its colours are the page's own."""

import hashlib
import html
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Stand-ins that the page's CSS variables replace, so that light, dark and print each get their own.
INK, DIM, LINE, PAPER = "#010101", "#020202", "#030303", "#040404"
BAD, GOOD = "#050505", "#060606"
VARIABLES = {
    INK: "--ink",
    DIM: "--dim",
    LINE: "--line",
    PAPER: "--paper",
    BAD: "--bad",
    GOOD: "--accent",
}
STYLE: dict[Any, Any] = {  # matplotlib names every key in a type of its own
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "text.parse_math": False,  # a dollar sign in a name is one
    "text.color": INK,
    "axes.labelcolor": DIM,
    "axes.edgecolor": LINE,
    "axes.linewidth": 0.8,
    "xtick.color": DIM,
    "ytick.color": DIM,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
}
WORST = 5  # layers that are named
LETTERS = 150  # that fit below the axis
LEAST_GROUP = 5  # layers of one stage that get a name below the axis
CSS_PIXELS = 96  # an inch


def plot_classes(classes: Mapping[str, Mapping[str, float | None]], int8: str) -> str:
    """Return IoU by class as SVG: torch, FP16 and INT8, the largest drop on top.

    Args:
        classes: IoU of each graph (0…1) by class, of the classes that the ground truth holds, in
            the order in which they are drawn from the top.
        int8: the name of the INT8 graph.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.9, 0.62 + 0.215 * len(classes)), layout="constrained")
        axes = figure.add_subplot()
        for row, ious in enumerate(classes.values()):
            _class_row(axes, row, *(ious.get(name) for name in ("torch", "fp16", int8)))
        axes.set_yticks(range(len(classes)), list(classes), color=INK)
        axes.set_ylim(len(classes) - 0.4, -0.7)
        axes.set_xlim(0, 100)
        axes.set_xlabel("IoU, %")
        axes.grid(axis="x", color=LINE, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.legend(
            handles=[
                axes.scatter([], [], s=26, facecolor=PAPER, edgecolor=INK, label="torch"),
                axes.scatter([], [], s=42, marker="|", color=DIM, label="FP16"),
                axes.scatter([], [], s=26, color=BAD, label="INT8, lower"),
                axes.scatter([], [], s=26, color=GOOD, label="INT8, not lower"),
            ],
            loc="lower center",
            bbox_to_anchor=(0.5, 1.0),
            ncols=4,
            frameon=False,
            handletextpad=0.1,
            columnspacing=1.0,
        )
        return _svg(figure, f"IoU of {len(classes)} classes: torch, FP16 and INT8")


def _class_row(
    axes: Axes, row: int, torch: float | None, fp16: float | None, int8: float | None
) -> None:
    """Draw one class: a line from torch's IoU to INT8's, and what it costs at the right."""
    if torch is not None and int8 is not None:
        color = BAD if int8 < torch else GOOD
        axes.plot([100 * torch, 100 * int8], [row, row], color=color, linewidth=2, zorder=2)
        change = f"{100 * (int8 - torch):+z.1f}".replace("-", "−")
        axes.text(103, row, change, va="center", color=color, fontsize=8.5)
    free: dict[str, Any] = {"zorder": 3, "clip_on": False}
    if torch is not None:
        axes.scatter([100 * torch], [row], s=26, facecolor=PAPER, edgecolor=INK, **free)
    if fp16 is not None:
        axes.scatter([100 * fp16], [row], s=42, marker="|", color=DIM, **free)
    if int8 is not None:
        color = BAD if torch is not None and int8 < torch else GOOD
        axes.scatter([100 * int8], [row], s=26, color=color, **free)


def plot_layers(layers: Sequence[Mapping[str, Any]]) -> str:
    """Return SQNR along the network as SVG; the worst layers carry their rank.

    Args:
        layers: as ``layers.layers`` in report.json has them; at least one with an SQNR.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11.6, 3.0), layout="constrained")
        axes = figure.add_subplot()
        known = [(x, layer) for x, layer in enumerate(layers) if layer["sqnr_db"] is not None]
        axes.plot(
            [x for x, _ in known],
            [layer["sqnr_db"] for _, layer in known],
            color=LINE,
            linewidth=1.2,
            zorder=1,
        )
        for op_type, label, marker, size, face in (
            ("Conv", "convolution", "o", 16, GOOD),
            ("Add", "sum", "D", 13, PAPER),
        ):
            points = [(x, layer["sqnr_db"]) for x, layer in known if layer["op_type"] == op_type]
            if points:
                places, heights = zip(*points, strict=True)
                drawn = axes.scatter(places, heights, s=size, marker=marker, label=label, zorder=2)
                drawn.set(facecolor=face, edgecolor=GOOD)
        for rank, (x, layer) in enumerate(worst_layers(layers), start=1):
            _mark(axes, x, layer["sqnr_db"], str(rank))
        stages = _stages(layers)
        axes.set_xticks(list(stages), list(stages.values()), ha="left")
        axes.grid(axis="both", color=LINE, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_xlim(-1, len(layers))
        lowest, highest = axes.get_ylim()
        axes.set_ylim(lowest - 0.12 * (highest - lowest), highest)  # room for the ranks
        axes.set_ylabel("SQNR, dB")
        axes.legend(loc="upper right", frameon=False, handletextpad=0.1, ncols=2)
        return _svg(figure, f"SQNR of {len(layers)} layers in the graph's order")


def _mark(axes: Axes, x: int, y: float, text: str) -> None:
    """Draw one of the worst points, with its rank below."""
    axes.scatter([x], [y], s=22, color=BAD, zorder=3)
    label = axes.annotate(text, (x, y), (0, -6), textcoords="offset points", ha="center", va="top")
    label.set(color=BAD, fontweight="bold")


def worst_layers(layers: Sequence[Mapping[str, Any]]) -> list[tuple[int, Mapping[str, Any]]]:
    """Return the layers of the lowest SQNR with their places, the lowest first."""
    known = [(x, layer) for x, layer in enumerate(layers) if layer["sqnr_db"] is not None]
    return sorted(known, key=lambda item: item[1]["sqnr_db"])[:WORST]


def _stages(layers: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """Return the names of stages with many layers by where they begin, as short as they must be.

    A stage is what the names of its convolutions begin with, up to the first dot.
    """
    names: list[str] = []
    for layer in layers:
        stage = layer["node"].split(".")[0] if layer["op_type"] == "Conv" else ""
        names.append(stage or (names[-1] if names else ""))
    starts = [x for x, name in enumerate(names) if x == 0 or names[x - 1] != name]
    ends = [*starts[1:], len(names)]
    least = max(LEAST_GROUP, len(names) // 20)
    stages = [x for x, end in zip(starts, ends, strict=True) if end - x >= least]
    following = [*stages[1:], len(names)]  # one too many where there is no stage at all
    return {
        x: _shortened(names[x], LETTERS * (end - x) // len(names))
        for x, end in zip(stages, following, strict=False)
    }


def _shortened(name: str, letters: int) -> str:
    """Return a name of at most so many letters, its middle left out."""
    if len(name) <= letters:
        return name
    half = max(1, (letters - 1) // 2)
    return f"{name[:half]}…{name[-half:]}"


def _svg(figure: Figure, title: str) -> str:
    """Return a figure as an SVG element that takes its colours and its font from the page."""
    content = io.StringIO()
    figure.savefig(content, format="svg", transparent=True, metadata={"Date": None})
    svg = content.getvalue()
    svg = svg[svg.index("<svg") :]
    for pattern in (r"<metadata>.*?</metadata>", r"<style.*?</style>", r" font-family: [^;]*;"):
        svg = re.sub(pattern, "", svg, flags=re.DOTALL)
    svg = re.sub(r' (?:width|height)="[^"]*pt"', "", svg, count=2)
    for color, variable in VARIABLES.items():
        svg = svg.replace(color, f"var({variable})")
    # ids are one space for the whole page: only those that are referred to stay, made unique
    prefix = hashlib.sha256(svg.encode()).hexdigest()[:8]
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda m: f' id="{prefix}{m[1]}"' if m[1] in used else "", svg)
    svg = re.sub(r'(url\(|href=")#', rf"\1#{prefix}", svg)
    width = round(figure.get_figwidth() * CSS_PIXELS)
    opening = f'<svg role="img" aria-label="{html.escape(title)}" style="max-width: {width}px"'
    return svg.replace("<svg", opening, 1).strip()
