"""Whether a quantized graph obeys the rules of the target that shall run it."""

from deploy.lint.rules import RULES, Finding, lint

__all__ = ["RULES", "Finding", "lint"]
