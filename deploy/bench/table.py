"""The benchmark's figures as tables, for the terminal and as Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deploy.report.figures import number, percent

Row = Mapping[str, Any]
LATENCY_COLUMNS = ("onnxruntime ms", "x", "OpenVINO ms", "x")


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells as text; the first ``left`` columns are words, the others numbers."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    left: int

    def to_markdown(self) -> str:
        """Return the table with its title."""
        marks = ["---"] * self.left + ["---:"] * (len(self.columns) - self.left)
        lines = [self.columns, marks, *self.rows]
        return "\n".join([self.title, "", *(f"| {' | '.join(line)} |" for line in lines), ""])


def headline(settings: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    """Say what was measured, where and when."""
    versions = ", ".join(f"{name} {v}" for name, v in environment["versions"].items())
    return (
        f"{settings['images']} images calibrate, {settings['limit']} of {settings['dataset']} val "
        f"evaluate, rounds in turn: {settings['rounds']}, threads: {environment['threads']}; "
        f"{environment['cpu']} ({', '.join(environment['instruction_sets'])}), "
        f"{environment['memory_gib']} GiB; {versions}; {environment['date']}"
    )


def stage_table(rows: Sequence[Row]) -> Table:
    """Return what the stages cost."""
    few, many = rows[0]["peak_mib"]
    return Table(
        title="Stages: time as a multiple of the forward pass of the same graph",
        columns=[
            *("variant", "graph", "work", "ms/image", "x forward"),
            *(f"peak MiB, {few} images", f"{many} images"),
        ],
        rows=[
            [
                row["variant"],
                row["graph"],
                row["work"],
                number(row["ms_per_image"]),
                number(row["ratio"], 2),
                *(number(value, 0) for value in row["peak_mib"].values()),
            ]
            for row in rows
        ],
        left=3,
    )


def quantizer_table(rows: Sequence[Row]) -> Table:
    """Return what quantizers cost and give."""
    return Table(
        title=(
            "Quantizers: time from FP32 to INT8 as a multiple of as many FP32 forward passes in "
            "onnxruntime; latency as a multiple of one"
        ),
        columns=[
            *("variant", "quantizer", "images", "s", "x forward", "peak MiB", "mIoU %"),
            *("agree %", "SQNR dB", *LATENCY_COLUMNS),
        ],
        rows=[
            [
                row["variant"],
                row["label"],
                number(row.get("images"), 0),
                number(row.get("seconds")),
                number(row.get("ratio"), 2),
                number(row.get("peak_mib"), 0),
                percent(row.get("miou")),
                percent(row.get("agreement")),
                number(row.get("sqnr_db")),
                *latency_cells(row),
            ]
            for row in rows
        ],
        left=2,
    )


def latency_cells(row: Row) -> list[str]:
    """Return the cells below LATENCY_COLUMNS."""
    runtimes = ("onnxruntime", "openvino")
    figures = [(row.get(f"{r}_ms"), row.get(f"{r}_ratio")) for r in runtimes]
    return [cell for ms, ratio in figures for cell in (number(ms), number(ratio, 2))]


def notes(rows: Sequence[Row]) -> list[str]:
    """Say what is missing, and why."""
    lines = [f"{row['label']}: {row['note']}" for row in rows if "note" in row]
    measured = [row for row in rows if "note" not in row]
    if measured and not any("openvino_ms" in row for row in measured):
        lines.append("OpenVINO: it is not installed: pip install '.[bench]'")
    lines += [
        f"{row['label']}: OpenVINO could not load its graph"
        for row in measured
        if "openvino_ms" not in row and any("openvino_ms" in other for other in measured)
    ]
    start = [row["start_mib"] for row in measured if row.get("start_mib")]
    if start:
        lines.append(
            f"Peak memory is that of a process of its own; {max(start):.0f} MiB of it are there "
            "before it begins, Python and its libraries."
        )
    return lines
