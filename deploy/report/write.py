"""Rendering: the figures are in the report's content, the form is in the templates."""

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from deploy.artifacts import PRECISIONS
from deploy.figures import (
    SCENES_NOTE,
    asked,
    data_set,
    has_published,
    interval,
    is_drawn,
    number,
    percent,
)
from deploy.files import write_whole
from deploy.metrics import CONFIDENCE, RESAMPLES
from deploy.report.build import Report

COLUMNS = ("torch", *PRECISIONS)


def write_report(content: Report, folder: Path) -> None:
    """Write ``report.json``, ``report.md`` and ``report.html`` into ``folder``.

    Raises:
        DeployError: a file cannot be written.
    """
    write_whole(folder / "report.json", json.dumps(content, indent=1) + "\n")
    write_whole(folder / "report.md", render_markdown(content))
    write_whole(folder / "report.html", _render("report.html.j2", content))


def render_markdown(content: Report) -> str:
    """Return the report as Markdown."""
    return _render("report.md.j2", content)


def _render(template: str, content: Report) -> str:
    environment = Environment(
        loader=PackageLoader("deploy.report", "."),
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": percent, "number": number, "interval": interval}
    environment.filters["asked"] = asked
    rows = [_row(name, variant) for name, variant in content["variants"].items()]
    drawn = is_drawn(content["dataset"]) and not all(row["random"] for row in rows)
    return environment.get_template(template).render(
        report=content,
        rows=rows,
        columns=COLUMNS,
        images=data_set(content["dataset"]),
        published=has_published(content["dataset"]),
        note=SCENES_NOTE if drawn else None,
        confidence=CONFIDENCE,
        resamples=RESAMPLES,
    )


def _row(name: str, variant: dict[str, Any]) -> dict[str, Any]:
    """Return what the report says of a variant."""
    results = variant["results"]
    classes = results.get("torch", {}).get("per_class_iou") or {}
    return {
        "id": name,
        "random": variant["weights"]["source"] == "random",
        "variant": variant,
        "miou": {column: results.get(column, {}).get("miou") for column in COLUMNS},
        "int8": results.get("int8", {"miou_drop": None, "miou_ratio": None}),
        "results": results,
        "classes": {
            class_name: {column: results[column]["per_class_iou"][class_name] for column in results}
            for class_name, iou in classes.items()
            if iou is not None
        },
    }
