"""What a reader wants to know first: what INT8 costs, and whether that was allowed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from deploy.report.build import Report, int8_graphs
from deploy.report.figures import SCENES_NOTE, asked, data_set, interval, is_drawn, percent
from deploy.report.processor import sentences
from deploy.targets import int8_name

Measured = tuple[str, str, Mapping[str, Any]]  # variant, graph, its figures


class Status(StrEnum):
    """How a line of the verdict is to be taken; in the order in which they stand."""

    FAIL = "fail"
    PASS = "pass"
    NOTE = "note"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One sentence or two of the verdict."""

    status: Status
    text: str


def verdict(content: Report) -> list[Line]:
    """Return the verdict on the graphs of a report, the most important line first."""
    variants = content["variants"]
    trained = {name: v for name, v in variants.items() if not is_random(v)}
    lines = [_gate(name, v, content["dataset"]) for name, v in variants.items() if v["gate"]]
    free = [item for item in _measured(trained) if item[1] != _gated(trained[item[0]])]
    lines += _worst(free, content["dataset"], gated=bool(lines))
    lines += _processor(variants)
    lines += _random({name: v for name, v in variants.items() if is_random(v)})
    missing = [name for name, v in variants.items() if not int8_graphs(v) and not v["gate"]]
    if missing:
        lines.append(Line(status=Status.NOTE, text=f"No INT8 graph: {', '.join(missing)}."))
    lines += _compared(content["comparison"])
    if trained and is_drawn(content["dataset"]):
        lines.append(Line(status=Status.NOTE, text=SCENES_NOTE))
    return sorted(lines, key=lambda line: list(Status).index(line.status))


def is_random(variant: Mapping[str, Any]) -> bool:
    """Say whether a variant's parameters are random, so that it has no accuracy."""
    return bool(variant["weights"]["source"] == "random")


def _measured(variants: Mapping[str, Any]) -> list[Measured]:
    """Return the INT8 graphs that have accuracy, with that."""
    return [
        (name, graph, figures)
        for name, variant in variants.items()
        for graph, figures in int8_graphs(variant).items()
        if figures["miou_drop"]
    ]


def _gated(variant: Mapping[str, Any]) -> str | None:
    """Return the name of the graph that a gate was held against, if there was one."""
    return int8_name(variant["gate"]["target"]) if variant["gate"] else None


def _gate(name: str, variant: Mapping[str, Any], dataset: Mapping[str, Any]) -> Line:
    gate = variant["gate"]
    graph = _gated(variant)
    text = f"{name} {graph}: the gate {'holds' if gate['held'] else 'is missed'} ({asked(gate)})."
    if gate["confirmed"]:
        drop = interval(gate["confirmed"]["miou_drop"])
        text += f" Against the float graph it drops {drop} points on"
        text += f" {gate['evaluated_images']} images."
    if not gate["held"]:
        text += f" What came nearest is kept as {graph}-missed.onnx."
    for measured in _measured({name: variant}):
        if measured[1] == graph:
            text += f" Here, against torch on {data_set(dataset)}: {_cost(measured)}."
    return Line(status=Status.PASS if gate["held"] else Status.FAIL, text=text)


def _worst(measured: list[Measured], dataset: Mapping[str, Any], *, gated: bool) -> Iterator[Line]:
    """Yield the worst INT8 drop of the graphs that have no gate, and what it means."""
    if not measured:
        return
    worst = max(measured, key=lambda item: item[2]["miou_drop"]["value"])
    drop = worst[2]["miou_drop"]
    text = "The worst INT8 drop without a gate is " if gated else "No gate was set. "
    text += "" if gated else "The worst INT8 drop is "
    text += f"{_cost(worst)}, on {data_set(dataset)}."
    if drop["low"] is None:
        text += " One image has no interval."
    elif drop["low"] <= 0 <= drop["high"]:
        text += " The interval holds 0: these images do not tell the graph from torch."
    elif drop["low"] > 0:
        text += " The interval lies above 0: the loss is real on images of this kind."
    else:
        text += " The interval lies below 0: on these images the graph does better than torch."
    yield Line(status=Status.NOTE, text=text)


def _cost(measured: Measured) -> str:
    name, graph, figures = measured
    ratio = figures["miou_ratio"]["value"] if figures["miou_ratio"] else None
    kept = f", {percent(ratio)}% of torch's mIoU" if ratio is not None else ""
    return f"{interval(figures['miou_drop'])} points ({name} {graph}{kept})"


def _processor(variants: Mapping[str, Any]) -> Iterator[Line]:
    """Yield what the processor's own kernels make of the graphs, where that is something else."""
    for text in sentences(variants):
        yield Line(status=Status.NOTE, text=text)


def _random(variants: Mapping[str, Any]) -> Iterator[Line]:
    if not variants:
        return
    plural = "have" if len(variants) > 1 else "has"
    text = f"{', '.join(variants)} {plural} random parameters, and those have no accuracy."
    found = [
        (figures["agreement"], name, graph)
        for name, variant in variants.items()
        for graph, figures in int8_graphs(variant).items()
        if figures["agreement"] is not None
    ]
    if found:
        share, name, graph = min(found)
        text += f" INT8 follows torch on {percent(share)}% of the pixels ({name} {graph}"
        text += ", the least of them)." if len(found) > 1 else ")."
    yield Line(status=Status.NOTE, text=text)


def _compared(comparison: Mapping[str, Any] | None) -> Iterator[Line]:
    if comparison is None:
        return
    for text in comparison["regressions"]:
        yield Line(status=Status.FAIL, text=f"Regression: {text}.")
    if not comparison["regressions"]:
        text = f"No regression beyond {comparison['tolerance']:g} points since "
        text += f"{comparison['file']} of {comparison['date']}."
        yield Line(status=Status.PASS, text=text)
