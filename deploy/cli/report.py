"""The command that writes the report, and compares it with an earlier one."""

from pathlib import Path
from typing import Annotated

import typer

import deploy
from deploy.cli import display_measured, display_report
from deploy.cli.options import AsJson, Out, Variants
from deploy.report.compare import TOLERANCE
from deploy.store.artifacts import DEFAULT_OUT

EXIT_REGRESSION = 1

Compare = Annotated[
    Path | None,
    typer.Option("--compare", metavar="OLD.json", help="report.json of an earlier run."),
]
Tolerance = Annotated[
    float,
    typer.Option("--tolerance", min=0, metavar="POINTS", help="A larger fall is a regression."),
]


def report(
    variants: Variants = None,
    compare: Compare = None,
    tolerance: Tolerance = TOLERANCE,
    out: Out = DEFAULT_OUT,
    as_json: AsJson = False,
) -> None:
    """Write report.json, report.md and report.html from the validation results.

    With --compare it also says what changed since an earlier run. A fall of mIoU (of agreement,
    where parameters are random) beyond the tolerance ends with exit code 1.
    """
    content = deploy.report(variants or (), compare=compare, tolerance=tolerance, out=out)
    if not as_json:
        display_report.compared(content["comparison"])
    display_measured.reported(content, out, as_json=as_json)
    if content["comparison"] and content["comparison"]["regressions"]:
        raise typer.Exit(EXIT_REGRESSION)
