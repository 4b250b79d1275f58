"""What a runtime's default options make of graphs where they compute something else than these say.

That is so on processors whose 8-bit kernels saturate (deploy/runtimes/saturation.py). A graph's
figures are those of exact kernels; what an application would get without asking for them stands
beside.
"""

from collections.abc import Mapping
from typing import Any

from deploy.runtimes.runner import Runner
from deploy.validate.scores import Result

FIGURES = ("miou", "miou_drop", "agreement", "sqnr_db", "latency_ms")
COMPARED = ("miou", "agreement", "sqnr_db")
SUFFIX = " with default options"


def with_defaults(runners: Mapping[str, Runner]) -> dict[str, Runner]:
    """Return runners, and beside those that have one the runner with default options."""
    defaults = {f"{name}{SUFFIX}": run.default for name, run in runners.items() if run.default}
    return {**runners, **defaults}


def separate(
    scores: Mapping[str, Result],
) -> tuple[dict[str, Result], dict[str, dict[str, Any] | None]]:
    """Return the scores of graphs, and of each what default options make of it, or None.

    None, too, where they make the same of it.
    """
    own = {name: score for name, score in scores.items() if not name.endswith(SUFFIX)}
    return own, {name: _differing(own[name], scores.get(f"{name}{SUFFIX}")) for name in own}


def _differing(exact: Result, default: Result | None) -> dict[str, Any] | None:
    if default is None:
        return None
    own, content = exact.to_json(), default.to_json()
    if all(own[key] == content[key] for key in COMPARED):
        return None
    return {key: content[key] for key in FIGURES}
