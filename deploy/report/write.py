"""Rendering: the figures are in the report's content, the form is in the templates."""

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from deploy.artifacts import PRECISIONS
from deploy.files import write_whole
from deploy.report.build import Report, int8_cost

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
    environment.filters |= {"percent": _percent, "number": _number}
    return environment.get_template(template).render(
        report=content,
        rows=[_row(name, variant) for name, variant in content["variants"].items()],
        columns=COLUMNS,
    )


def _row(name: str, variant: dict[str, Any]) -> dict[str, Any]:
    """Return one line of the mission's table: the figures that are differences and ratios."""
    results = variant["results"]
    miou = {column: results.get(column, {}).get("miou") for column in COLUMNS}
    drop, ratio = int8_cost(results)
    classes = results["torch"]["per_class_iou"] if "torch" in results else {}
    return {
        "id": name,
        "random": variant["weights"]["source"] == "random",
        "variant": variant,
        "miou": miou,
        "drop": drop,
        "ratio": ratio,
        "results": {column: results[column] for column in COLUMNS if column in results},
        "classes": {
            class_name: {column: results[column]["per_class_iou"][class_name] for column in results}
            for class_name, iou in classes.items()
            if iou is not None
        },
    }


def _percent(value: float | None, digits: int = 2) -> str:
    """Format a share as a percentage, without the sign; what is missing as a dash."""
    return "–" if value is None else f"{100 * value:.{digits}f}"


def _number(value: float | None, digits: int = 1, scale: float = 1.0) -> str:
    """Format ``value / scale``; what is missing as a dash."""
    return "–" if value is None else f"{value / scale:,.{digits}f}"
