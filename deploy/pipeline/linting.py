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
    soc: str | None
    findings: list[Finding]


def lint(path: Path, target: str | None = None, soc: str | None = None) -> LintedGraph:
    """Check a QDQ graph against the rules of a target, by default the one its metadata name.

    Of ``soc``, a chip of the target, the rules are checked as well.

    Raises:
        DeployError: there is no such target, or it has no such chip.
        GraphError: the file is no valid graph, or no QDQ graph that can be checked.
    """
    model = read_graph(path)
    target = target or read_metadata(model).get("target", DEFAULT_TARGET)
    with naming(path):
        findings = check_graph(model, target, soc)
    return LintedGraph(path=path, target=target, soc=soc, findings=findings)
