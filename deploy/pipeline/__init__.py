"""The stages in order: export → simplify → calibrate → quantize → validate → report.

Only here are artifacts read and written; the stages take values and give values. Start reading at
whole.py.
"""

from deploy.pipeline.exporting import ExportedGraph, export, simplify
from deploy.pipeline.measuring import report, validate
from deploy.pipeline.quantizing import (
    LintedGraph,
    calibrate,
    lint,
    merge_calibration,
    quantize,
)
from deploy.pipeline.whole import export_all

__all__ = [
    "ExportedGraph",
    "LintedGraph",
    "calibrate",
    "export",
    "export_all",
    "lint",
    "merge_calibration",
    "quantize",
    "report",
    "simplify",
    "validate",
]
