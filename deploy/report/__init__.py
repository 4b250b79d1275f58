"""Validation results as JSON, Markdown and HTML."""

from deploy.report.build import Report, build_report
from deploy.report.compare import TOLERANCE, compare_reports, read_earlier
from deploy.report.write import render_html, render_markdown, write_report

__all__ = [
    "TOLERANCE",
    "Report",
    "build_report",
    "compare_reports",
    "read_earlier",
    "render_html",
    "render_markdown",
    "write_report",
]
