"""Accuracy, fidelity and latency on standard output: what validation and the report found."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deploy.cli.display import WIDTH, print_json, print_table
from deploy.report.accelerators import (
    EMULATED_NOTE,
    accelerator_lines,
    say_device,
    say_memory,
)
from deploy.report.build import Report
from deploy.report.figures import (
    SCENES_NOTE,
    data_set,
    interval,
    is_drawn,
    number,
    percent,
    random_note,
)
from deploy.store.artifacts import DEFAULT_RUNTIME
from deploy.targets import PRECISIONS


def validated(results: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Print the accuracy, fidelity and cost of every graph."""
    if as_json:
        return print_json(list(results))
    rows = []
    for result in results:
        source = result["weights"]["source"] if result["weights"] else "–"
        for name, scores in result["results"].items():
            rows.append(
                [
                    name if name == result["name"] else f"{result['name']} {name}",
                    source,
                    percent(scores["miou"]),
                    interval(scores["miou_drop"]),
                    *_fidelity(scores),
                    number(scores["latency_ms"]),
                    number(scores["size_bytes"], scale=1e6),
                ]
            )
    data = results[0]["dataset"]
    soc = f", {results[0]['soc']} emulated" if results[0]["soc"] else ""
    runtime = f"{results[0]['runtime']}{soc}"
    print(f"{data_set(data)}, protocol {data['protocol']}, graphs in {runtime}")
    columns = ["graph", "weights", "mIoU %", "drop [95%]", "agree %", "SQNR dB", "cosine"]
    print_table([*columns, "ms", "MB"], rows, left=2)
    _convolutions(results)
    _processor({result["name"]: result for result in results})
    sources = {r["name"]: (r["weights"] or {}).get("source") for r in results}
    random = [r["dataset"]["images"] for r in results if sources[r["name"]] == "random"]
    return _notes([row[1] for row in rows], data, random)


def _processor(results: Mapping[str, Mapping[str, Any]]) -> None:
    """Say what default options make of graphs on a processor whose kernels saturate."""
    from deploy.report.processor import sentences

    for text in sentences(results):
        print(textwrap.fill(text, WIDTH, break_on_hyphens=False))


def _convolutions(results: Sequence[Mapping[str, Any]]) -> None:
    """Say how many convolutions of each quantized graph its runtime computes in 8 bits."""
    for result in results:
        for name, scores in result["results"].items():
            integer, total = scores["int8_convolutions"] or (0, 0)
            if integer or name.startswith("int8"):
                label = name if name == result["name"] else f"{result['name']} {name}"
                memory = say_memory(scores["footprint"])
                said = f"{label}: {integer} of {total} convolutions in 8 bits"
                device = say_device(scores["device"])
                print("; ".join(part for part in (said, memory, device) if part))


def reported(
    content: Report, out: Path, *, as_json: bool, seconds: Mapping[str, float] | None = None
) -> None:
    """Print accuracy, fidelity and where the report is; with ``seconds``, each stage's time."""
    if as_json:
        return print_json(content)
    models, graphs = [], []
    for name, variant in content["variants"].items():
        results = variant["results"]
        int8 = results.get("int8", {})
        drop, ratio = (int8.get(key) or {"value": None} for key in ("miou_drop", "miou_ratio"))
        models.append(
            [
                name,
                variant["weights"]["source"],
                number(variant["macs"], 2, 1e9),
                number(variant["parameters"], 2, 1e6),
                percent(variant["published"]["miou"], 1),
                *(percent(results.get(k, {}).get("miou")) for k in ("torch", *PRECISIONS)),
                percent(drop["value"]),
                percent(ratio["value"]),
            ]
        )
        graphs += [
            [name, graph, interval(s["miou_drop"]), interval(s["miou_ratio"]), *_fidelity(s)]
            for graph, s in results.items()
            if graph != "torch"
        ]
    data = content["dataset"]
    print(f"mIoU %, {data_set(data)}, protocol {data['protocol']}; drop and ratio of INT8 to torch")
    columns = ["model", "weights", "GMACs", "params M", "published", "torch", "FP32", "FP16"]
    print_table([*columns, "INT8", "drop", "ratio"], models, left=2)
    variants = content["variants"].values()
    random = [v["images"] for v in variants if v["weights"]["source"] == "random"]
    _notes([row[1] for row in models], data, random)
    print("each graph against torch")
    columns = ["model", "graph", "mIoU drop [95%]", "ratio % [95%]"]
    print_table([*columns, "agree %", "SQNR dB", "cosine"], graphs, left=2)
    _processor(content["variants"])
    _accelerators(content)
    if seconds:
        _stage_times(seconds, list(content["variants"]))
    return print(f"report: {out / 'report' / 'report.html'}")


def _accelerators(content: Report) -> None:
    """Print each graph in the arithmetic of its own accelerator, if others than ours ran."""
    lines = accelerator_lines(content)
    if not any(line["runtime"] != DEFAULT_RUNTIME for line in lines):
        return
    print(
        "each graph in its own accelerator's arithmetic; in parentheses the vendor's own quantizer"
    )
    figures = ("miou", "agreement", "sqnr", "convolutions")
    rows = [
        [
            *(line[key] for key in ("model", "target", "runtime")),
            str(line["images"]),
            *(
                ours + (f" ({own})" if own is not None else "")
                for ours, own in (line[key] for key in figures)
            ),
        ]
        for line in lines
    ]
    columns = ["model", "target", "ran in", "images", "mIoU %", "agree %", "SQNR dB", "8 bits"]
    print_table(columns, rows, left=3)
    if any("," in line["runtime"] for line in lines):
        print(f"{EMULATED_NOTE}\n")


def _fidelity(scores: Mapping[str, Any]) -> list[str]:
    """Return the cells that say how closely a graph follows torch."""
    cosine = number(scores["cosine"], 4)
    return [percent(scores["agreement"]), number(scores["sqnr_db"]), cosine]


def _notes(sources: Sequence[str], data: Mapping[str, Any], random: Sequence[int]) -> None:
    """Say what a table's accuracy figures, or their absence, mean."""
    if "random" in sources:
        print(textwrap.fill(random_note(random or [data["images"]]), WIDTH) + "\n")
    if is_drawn(data) and set(sources) != {"random"}:
        print(f"{SCENES_NOTE}\n")


def _stage_times(seconds: Mapping[str, float], names: Sequence[str]) -> None:
    """Print the seconds of each stage, a line for each variant."""
    stages = list(dict.fromkeys(k.split()[0] for k in seconds if k.split()[1] in names))
    rows = [
        [name, *(f"{seconds.get(f'{stage} {name}', 0.0):.1f}" for stage in stages)]
        for name in names
    ]
    print(f"seconds by stage, {sum(seconds.values()):.0f} in all")
    print_table(["model", *stages], rows)
