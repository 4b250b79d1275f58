"""The checks that accelerators choose their rules from, and what they look at."""

from deploy.lint.rules import Finding, Rule, check

__all__ = ["Finding", "Rule", "check"]
