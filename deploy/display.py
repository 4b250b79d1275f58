"""Results on standard output: a table for a person, JSON for a program."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from deploy.pipeline import ExportedGraph
from deploy.quantization import CalibrationFile, QuantizedGraph
from deploy.report import Report, int8_cost
from deploy.simplify import SimplifiedGraph


def line(text: str) -> None:
    """Print one line."""
    print(text)


def _json(value: Any) -> None:
    print(json.dumps(value, indent=1, default=str))


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> None:
    """Print a table; all but the first ``left`` columns are numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    width = table.__rich_measure__(Console(width=400), Console(width=400).options).maximum
    Console(highlight=False, width=width).print(table)


def _share(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f}"


def _ops(ops: Mapping[str, int]) -> str:
    return f"{sum(ops.values())} nodes: " + ", ".join(f"{n} {op}" for op, n in ops.items())


def exported(result: ExportedGraph, *, as_json: bool) -> None:
    """Print what an export wrote."""
    if as_json:
        return _json(asdict(result) | {"simplified": _without_model(result.simplified)})
    print(f"{result.variant}: {result.path}  (weights: {result.weights})")
    print(f"  differs from torch by {result.difference}")
    print(f"  {_ops(result.simplified.ops_before)}")
    return print(f"  simplified to {_ops(result.simplified.ops_after)}")


def simplified(result: SimplifiedGraph, *, as_json: bool) -> None:
    """Print what a simplification did."""
    if as_json:
        return _json(_without_model(result))
    print(f"before  {_ops(result.ops_before)}")
    print(f"after   {_ops(result.ops_after)}")
    return print(f"differs by {result.difference}")


def _without_model(result: SimplifiedGraph) -> dict[str, Any]:
    return {
        "ops_before": result.ops_before,
        "ops_after": result.ops_after,
        "difference": asdict(result.difference),
    }


def quantized(results: Sequence[QuantizedGraph], *, as_json: bool) -> None:
    """Print the graphs that a quantization wrote, and what stays float."""
    if as_json:
        return _json([asdict(result) for result in results])
    for result in results:
        reused = ", calibration reused" if result.calibration_reused else ""
        megabytes = result.size_bytes / 1e6
        print(f"{result.target} {result.precision}: {result.path}  ({megabytes:.1f} MB{reused})")
        kept = len(result.kept_float)
        print(f"  {result.quantized_nodes} nodes in {result.precision}, {kept} stay float")
        if chosen := Counter(result.methods.values()).most_common():
            print("  auto: " + ", ".join(f"{count} {method}" for method, count in chosen))
        for node, reason in result.kept_float.items():
            print(f"  {node} stays float: {reason}")
    return None


def calibrated(result: CalibrationFile, *, as_json: bool) -> None:
    """Print where statistics are, and of what."""
    if as_json:
        return _json(asdict(result))
    reused = ", reused" if result.reused else ""
    counts = f"{result.images} images, {result.tensors} tensors"
    return print(f"{result.target}: {result.path}  ({counts}{reused})")


def validated(results: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Print the accuracy, fidelity and cost of every graph."""
    if as_json:
        return _json(list(results))
    rows = []
    for result in results:
        source = result["weights"]["source"] if result["weights"] else "–"
        for name, scores in result["results"].items():
            label = name if name == result["name"] else f"{result['name']} {name}"
            sqnr = scores["sqnr_db"]
            rows.append(
                [
                    label,
                    source,
                    _share(scores["miou"]),
                    _share(scores["pixel_accuracy"]),
                    _share(scores["agreement"]),
                    "–" if sqnr is None else f"{sqnr:.1f}",
                    f"{scores['latency_ms']:.1f}",
                    f"{scores['size_bytes'] / 1e6:.1f}",
                ]
            )
    data = results[0]["dataset"]
    print(f"{data['images']} images of {data['name']} {data['split']}, protocol {data['protocol']}")
    columns = ["graph", "weights", "mIoU %", "pixel acc. %", "agreement %", "SQNR dB", "ms", "MB"]
    return _table(columns, rows, left=2)


def reported(
    content: Report, out: Path, *, as_json: bool, seconds: Mapping[str, float] | None = None
) -> None:
    """Print the mission's table and where the report is; with ``seconds``, each stage's time."""
    if as_json:
        return _json(content)
    rows = []
    for name, variant in content["variants"].items():
        source = variant["weights"]["source"]
        miou = {k: r["miou"] for k, r in variant["results"].items()}
        agreement = {k: r["agreement"] for k, r in variant["results"].items()}
        accuracy = [
            *(miou.get(k) for k in ("torch", "fp32", "fp16", "int8")),
            *int8_cost(variant["results"]),
        ]
        shown = "({})" if source == "random" else "{}"
        rows.append(
            [
                name,
                source,
                f"{variant['macs'] / 1e9:.2f}",
                f"{variant['parameters'] / 1e6:.2f}",
                *(shown.format(_share(value)) for value in accuracy),
                *(_share(agreement.get(k)) for k in ("fp16", "int8")),
                _share(variant["published"]["miou"], 1),
            ]
        )
    data = content["dataset"]
    print(f"mIoU %, {data['images']} images of {data['name']} {data['split']}, {data['protocol']}")
    columns = ["model", "weights", "GMACs", "params M", "torch", "FP32", "FP16", "INT8", "drop"]
    _table([*columns, "ratio %", "agree FP16", "agree INT8", "published"], rows, left=2)
    if any(v["weights"]["source"] == "random" for v in content["variants"].values()):
        print("(random): parameters are seeded random numbers; their mIoU says nothing.")
    if seconds:
        _stage_times(seconds, list(content["variants"]))
    return print(f"report: {out / 'report' / 'report.html'}")


def _stage_times(seconds: Mapping[str, float], names: Sequence[str]) -> None:
    """Print the seconds of each stage, a line for each variant."""
    stages = list(dict.fromkeys(k.split()[0] for k in seconds if k.split()[1] in names))
    rows = [
        [name, *(f"{seconds.get(f'{stage} {name}', 0.0):.1f}" for stage in stages)]
        for name in names
    ]
    print(f"seconds by stage, {sum(seconds.values()):.0f} in all")
    _table(["model", *stages], rows)


def models(variants: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Print the variants."""
    if as_json:
        return _json(list(variants))
    rows = [
        [
            variant["id"],
            variant["full_name"],
            variant["weights"]["path"] or variant["weights"]["source"],
            f"{variant['parameters'] / 1e6:.2f}",
            f"{variant['macs'] / 1e9:.2f}",
            _share(variant["published_miou"], 1),
            _share(variant["vacc_fp16_miou"]),
            _share(variant["vacc_int8_miou"]),
        ]
        for variant in variants
    ]
    columns = ["id", "model", "weights", "params M", "GMACs", "published", "VACC FP16", "VACC INT8"]
    return _table(columns, rows, left=3)


def benched(
    rows: Sequence[Mapping[str, Any]], environment: Mapping[str, Any], images: int, rounds: int
) -> None:
    """Print the benchmark's rows."""
    few, many = rows[0]["peak_mib"]
    print(
        f"{images} images, {rounds} rounds, {environment['threads']} threads, "
        f"{environment['cpu']}, {environment['date']}"
    )
    columns = ["variant", "graph", "work", "ms/image", "x forward"]
    _table(
        [*columns, f"peak MiB, {few} images", f"{many} images"],
        [
            [
                row["variant"],
                row["graph"],
                row["work"],
                f"{row['ms_per_image']:.1f}",
                f"{row['ratio']:.2f}",
                *(f"{value:.0f}" for value in row["peak_mib"].values()),
            ]
            for row in rows
        ],
        left=3,
    )
