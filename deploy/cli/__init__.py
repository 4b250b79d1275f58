"""The command line: parse, call, print. The only place that prints results or exits."""

from deploy.cli.commands import app, main

__all__ = ["app", "main"]
