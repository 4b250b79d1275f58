"""Checking a quantized graph against the rules of an accelerator."""

from dataclasses import dataclass
from pathlib import Path

from deploy.graph.metadata import read_metadata
from deploy.graph.reading import naming, read_graph
from deploy.lint.rules import Finding
from deploy.targets import DEFAULT_TARGET
from deploy.targets import lint as check_graph


@dataclass(frozen=True, kw_only=True)
class LintedGraph:
    """A graph and the rules of a target that it breaks."""

    path: Path
    target: str
    findings: list[Finding]


def lint(path: Path, target: str | None = None) -> LintedGraph:
    """Check a QDQ graph against the rules of a target, by default the one its metadata name.

    Raises:
        DeployError: there is no such target.
        GraphError: the file is no valid graph, or no QDQ graph that can be checked.
    """
    model = read_graph(path)
    target = target or read_metadata(model).get("target", DEFAULT_TARGET)
    with naming(path):
        return LintedGraph(path=path, target=target, findings=check_graph(model, target))
