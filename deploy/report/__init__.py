"""Validation results as JSON, Markdown and HTML."""

from deploy.report.build import Report, build_report
from deploy.report.write import render_markdown, write_report

__all__ = ["Report", "build_report", "render_markdown", "write_report"]
