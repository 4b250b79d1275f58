"""Results on standard output: a table for a person, JSON for a program."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from deploy.quantize.written import HandedFolder, QuantizedGraph
from deploy.report.figures import asked, interval, number, percent

if TYPE_CHECKING:
    from deploy.export.simplify import SimplifiedGraph
    from deploy.pipeline.exporting import ExportedGraph
    from deploy.pipeline.linting import LintedGraph
    from deploy.quantize.preparation import CalibrationFile

WIDTH = 100  # of running text
SHOWN = 3  # nodes that are named of many
GATE_COLUMNS = (
    *("recipe", "float", "INT8 % MACs", "drop", "ratio %", "agree %", "SQNR dB", "ms", "holds"),
)


def line(text: str) -> None:
    """Print one line."""
    print(text)


def made(path: Path, content: Mapping[str, Any], *, as_json: bool) -> None:
    """Print where something was put; as JSON also what it is."""
    if as_json:
        return print_json({"path": path, **content})
    return print(path)


def print_json(value: Any) -> None:
    """Print plain values as JSON."""
    print(json.dumps(value, indent=1, default=str))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> None:
    """Print a table; all but the first ``left`` columns are numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    width = table.__rich_measure__(Console(width=400), Console(width=400).options).maximum
    Console(highlight=False, width=width).print(table)


def _ops(ops: Mapping[str, int]) -> str:
    return f"{sum(ops.values())} nodes: " + ", ".join(f"{n} {op}" for op, n in ops.items())


def exported(results: Iterable[ExportedGraph], *, as_json: bool) -> None:
    """Print what exports wrote, each as it comes; as JSON all at the end."""
    if as_json:
        return print_json([_plain_export(result) for result in results])
    for result in results:
        reused = ", reused" if result.reused else ""
        source = f"weights: {result.weights}, {len(result.classes)} classes{reused}"
        print(f"{result.variant}: {result.path}  ({source})")
        if result.simplified is None:
            print("  made from the same; --force exports it anew")
        else:
            print(f"  differs from torch by {result.difference}")
            print(f"  {_ops(result.simplified.ops_before)}")
            print(f"  simplified to {_ops(result.simplified.ops_after)}")
        _wrapped(result.wrapped)
    return None


def _plain_export(result: ExportedGraph) -> dict[str, Any]:
    simplified = result.simplified and _without_model(result.simplified)
    return asdict(replace(result, simplified=None)) | {"simplified": simplified}


def simplified(result: SimplifiedGraph, *, as_json: bool) -> None:
    """Print what a simplification did."""
    if as_json:
        return print_json(_without_model(result))
    print(f"before  {_ops(result.ops_before)}")
    print(f"after   {_ops(result.ops_after)}")
    return print(f"differs by {result.difference}")


def _without_model(result: SimplifiedGraph) -> dict[str, Any]:
    return {
        "ops_before": result.ops_before,
        "ops_after": result.ops_after,
        "difference": asdict(result.difference),
    }


def quantized(results: Sequence[QuantizedGraph | HandedFolder], *, as_json: bool) -> None:
    """Print the graphs that a quantization wrote, and what stays float."""
    if as_json:
        return print_json([asdict(result) for result in results])
    for result in results:
        if isinstance(result, HandedFolder):
            graph = f"carrier by recipe {result.recipe}" if result.recipe else "graph"
            images = f", {result.images} images, calibrate_mode {result.calibrate_mode}"
            print(
                f"{result.target} {result.path.name}: {result.path}  "
                f"({result.size_bytes / 1e6:.1f} MB: {graph}{images * bool(result.images)})"
            )
            continue
        reused = ", calibration reused" if result.calibration_reused else ""
        reused = ", reused" if result.reused else reused
        megabytes = result.size_bytes / 1e6
        print(f"{result.target} {result.path.stem}: {result.path}  ({megabytes:.1f} MB{reused})")
        if result.quantizer:
            print(f"  made by {result.quantizer}")
            continue
        kept = len(result.kept_float)
        print(f"  {result.quantized_nodes} nodes in {result.precision}, {kept} stay float")
        if result.shortfall:
            print(f"  WARNING: {number(result.sqnr_db)} dB, {result.shortfall}")
        if chosen := Counter(result.methods.values()).most_common():
            print("  auto: " + ", ".join(f"{count} {method}" for method, count in chosen))
        _kept_float(result.kept_float)
        _wrapped(result.wrapped)
        if result.gate is not None:
            _gate(result.gate)
    return None


def _kept_float(reasons: Mapping[str, str]) -> None:
    """Print what stays float and why, the nodes of one reason together where they are many."""
    for reason in dict.fromkeys(reasons.values()):
        nodes = [node for node, its in reasons.items() if its == reason]
        if len(nodes) > SHOWN:
            print(f"  {len(nodes)} nodes stay float ({', '.join(nodes[:SHOWN])}, …): {reason}")
            continue
        for node in nodes:
            print(f"  {node} stays float: {reason}")


def _wrapped(path: Path | None) -> None:
    """Print where the graph for a device is, if one was asked for."""
    if path is not None:
        print(f"  for the device: {path}")


def _gate(record: Mapping[str, Any]) -> None:
    """Print what the gate's search tried, and whether it holds."""
    print(f"\ngate: {asked(record)}; {record['tuning_images']} images for tuning")
    print_table(GATE_COLUMNS, [_gate_row(step) for step in record["steps"]])
    if record["confirmed"]:
        cost = record["confirmed"]
        print(
            f"on {record['evaluated_images']} evaluation images: drop "
            f"{interval(cost['miou_drop'])}, ratio {interval(cost['miou_ratio'])}"
        )
    print("gate holds" if record["held"] else "GATE MISSED: the graph is kept as …-missed.onnx")


def _gate_row(step: Mapping[str, Any]) -> list[str]:
    return [
        step["recipe"],
        str(step["float_layers"]),
        percent(step["int8_share_of_macs"], 1),
        interval(step["miou_drop"]),
        interval(step["miou_ratio"]),
        percent(step["agreement"]),
        number(step["sqnr_db"]),
        number(step["latency_ms"]),
        "yes" if step["held"] else "no",
    ]


def linted(result: LintedGraph, *, as_json: bool) -> None:
    """Print the rules that a graph breaks, rule by rule: what to do, then node by node."""
    if as_json:
        return print_json(asdict(result))
    if not result.findings:
        return print("clean")
    by_rule: dict[tuple[str, str], list[str]] = {}
    for finding in result.findings:
        lines = by_rule.setdefault((finding.rule, finding.remedy), [])
        lines.append(f"  {finding.node} {finding.problem}")
    for (rule, remedy), lines in by_rule.items():
        print(f"{rule} ({len(lines)}): {remedy}")
        print("\n".join(lines))
    count, chip = len(result.findings), f", {result.soc}" if result.soc else ""
    found = f"{count} finding{'s'[: count > 1]} for target {result.target}{chip}"
    return print(f"{found} in {result.path}")


def calibrated(result: CalibrationFile, *, as_json: bool) -> None:
    """Print where statistics are, and of what."""
    if as_json:
        return print_json(asdict(result))
    reused = ", reused" if result.reused else ""
    counts = f"{result.images} images, {result.tensors} tensors"
    return print(f"{result.target}: {result.path}  ({counts}{reused})")


def models(variants: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Print the variants."""
    if as_json:
        return print_json(list(variants))
    rows = [
        [
            variant["id"],
            variant["full_name"],
            variant["weights"]["path"] or variant["weights"]["source"],
            f"{variant['parameters'] / 1e6:.2f}",
            f"{variant['macs'] / 1e9:.2f}",
            percent(variant["published_miou"], 1),
            percent(variant["vacc_fp16_miou"]),
            percent(variant["vacc_int8_miou"]),
        ]
        for variant in variants
    ]
    columns = ["id", "model", "weights", "params M", "GMACs", "published", "VACC FP16", "VACC INT8"]
    return print_table(columns, rows, left=3)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> None:
    """Print a table of text cells under its title; all but the first ``left`` are numbers."""
    print(title)
    print_table(columns, rows, left=left)
