"""Rendering: the figures are in the report's content, the form is in the templates."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from deploy.report.accelerators import EMULATED_NOTE, accelerator_lines
from deploy.report.build import Report, int8_graphs
from deploy.report.figures import (
    FINENESS,
    asked,
    change,
    data_set,
    graph_title,
    has_published,
    interval,
    number,
    percent,
    random_note,
)
from deploy.report.plots import plot_classes, plot_layers, worst_layers
from deploy.report.strip import DIFFERENCE_LEGEND, image_strip
from deploy.report.verdict import is_random, verdict
from deploy.store.files import write_whole
from deploy.targets import GRAPHS, PRECISIONS
from deploy.validate.metrics import CONFIDENCE, RESAMPLES

Pictures = Mapping[str, Mapping[str, bytes]]  # of each variant, by file name
WORST_CLASSES = 5  # that the Markdown names


def write_report(content: Report, folder: Path, pictures: Pictures | None = None) -> None:
    """Write ``report.json``, ``report.md`` and ``report.html`` into ``folder``.

    Args:
        content: as :func:`build_report` gives it.
        folder: where to write.
        pictures: the files that the examples of each variant name; without them no image is shown.

    Raises:
        DeployError: a file cannot be written.
        ReportError: a picture is missing.
    """
    page = render_html(content, pictures or {})
    write_whole(folder / "report.json", json.dumps(content, indent=1) + "\n")
    write_whole(folder / "report.md", render_markdown(content))
    write_whole(folder / "report.html", page)


def render_markdown(content: Report) -> str:
    """Return the report as Markdown, short enough for a pull request."""
    return _render("report.md.j2", content, rows=_rows(content))


def render_html(content: Report, pictures: Pictures) -> str:
    """Return the report as a page that needs no other file and no network.

    Raises:
        ReportError: a picture of a variant that has pictures is missing.
    """
    rows = _rows(content)
    for row in rows:
        layers, examples = row["variant"]["layers"], row["variant"]["examples"]
        row["strip"] = []
        if examples and pictures.get(row["id"]):
            row["strip"] = image_strip(examples, pictures[row["id"]])
        if row["classes"]:
            row["class_plot"] = Markup(plot_classes(row["classes"], row["int8_name"]))
        if layers and any(layer["sqnr_db"] is not None for layer in layers["layers"]):
            row["layer_plot"] = Markup(plot_layers(layers["layers"]))
            row["worst_layers"] = worst_layers(layers["layers"])
    return _render("report.html.j2", content, rows=rows, difference_legend=DIFFERENCE_LEGEND)


def _render(template: str, content: Report, **values: Any) -> str:
    environment = Environment(
        loader=PackageLoader("deploy.report", "."),
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters: dict[str, Callable[..., str]]
    filters = {"percent": percent, "number": number, "interval": interval, "change": change}
    environment.filters |= {name: _with_minus(filter_) for name, filter_ in filters.items()}
    environment.filters |= {"asked": asked, "graph_title": graph_title, "minus": minus}
    found = {name for variant in content["variants"].values() for name in variant["results"]}
    lines = accelerator_lines(content)
    commands = [row["command"] for v in content["variants"].values() for row in v["accelerators"]]
    return environment.get_template(template).render(
        report=content,
        accelerators=lines,
        commands=list(dict.fromkeys(filter(None, commands))),
        emulated_note=EMULATED_NOTE,
        verdict=verdict(content),
        columns=["torch", *(name for name in GRAPHS if name in {*PRECISIONS, *found})],
        images=data_set(content["dataset"]),
        published=has_published(content["dataset"]),
        random_note=random_note([v["images"] for v in content["variants"].values() if is_random(v)])
        if any(map(is_random, content["variants"].values()))
        else None,
        confidence=CONFIDENCE,
        resamples=RESAMPLES,
        fineness=FINENESS,
        **values,
    )


def _with_minus(filter_: Callable[..., str]) -> Callable[..., str]:
    """Return a filter whose figures have a minus sign where the terminal has a hyphen."""
    return lambda *arguments, **options: minus(filter_(*arguments, **options))


def minus(text: str) -> str:
    """Return a text with minus signs before its negative figures."""
    return re.sub(r"(?<![\w.,-])-(?=\d)", "−", text)


def _rows(content: Report) -> list[dict[str, Any]]:
    return [_row(name, variant) for name, variant in content["variants"].items()]


def _row(name: str, variant: dict[str, Any]) -> dict[str, Any]:
    """Return what the report says of a variant."""
    results = variant["results"]
    int8_name = next(iter(int8_graphs(variant)), "int8")
    int8 = results.get(int8_name, {"miou_drop": None, "miou_ratio": None})
    per_class = {graph: r["per_class_iou"] for graph, r in results.items() if r["per_class_iou"]}
    present = per_class.get("torch", {})
    classes = {
        title: {graph: ious[title] for graph, ious in per_class.items()}
        for title, iou in present.items()
        if iou is not None
    }
    return {
        "id": name,
        "random": is_random(variant),
        "variant": variant,
        "results": results,
        "int8_name": int8_name,
        "int8": int8,
        # the largest drop first; as listed where there is no INT8 graph
        "classes": dict(
            sorted(classes.items(), key=lambda item: -(_class_drop(item[1], int8_name) or 0))
        ),
        "worst_classes": _worst_classes(classes, int8_name),
    }


def _worst_classes(
    classes: Mapping[str, Mapping[str, float | None]], int8: str
) -> list[dict[str, Any]]:
    """Return the classes that INT8 costs most, those that it costs nothing left out."""
    drops = {title: _class_drop(ious, int8) or 0.0 for title, ious in classes.items()}
    worst = sorted((title for title in drops if drops[title] > 0), key=lambda title: -drops[title])
    return [
        {"name": title, "drop": drops[title], "torch": ious["torch"], "int8": ious[int8]}
        for title in worst[:WORST_CLASSES]
        for ious in (classes[title],)
    ]


def _class_drop(ious: Mapping[str, float | None], int8: str) -> float | None:
    """Return torch's IoU minus INT8's."""
    before, after = ious.get("torch"), ious.get(int8)
    return None if before is None or after is None else before - after
