"""The networks of a target side by side: in this process, or on a cluster."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from deploy.calibration.preprocess import Size
from deploy.calibration.voc import Sample, pick
from deploy.cluster.client import Cluster
from deploy.progress import Progress
from deploy.runtimes.runner import Execution, Runner
from deploy.store.memory import give_back
from deploy.validate.default_options import with_defaults
from deploy.validate.evaluate import collect, evaluate_in_turns
from deploy.validate.examples import WorstImages
from deploy.validate.protocol import Protocol
from deploy.validate.scores import Result, Score, conclude
from deploy.validate.spread_evaluation import GraphOn, TorchOn, evaluate_on

TIMED_HERE = 4  # images on which this machine takes latencies where a cluster does the rest


@dataclass(frozen=True, kw_only=True)
class SideBySide:
    """Networks to compare, and on what.

    ``executions`` is filled with what of each network computes in 8 bits.
    """

    openers: dict[str, Callable[[], Runner]]
    groups: Sequence[Sequence[str]]  # that may be in memory together, one after the other
    samples: list[Sample]
    protocol: Protocol
    size: Size
    baseline: str | None
    class_names: list[str]
    watch: WorstImages | None
    name: str  # of the target
    progress: Progress
    executions: dict[str, Execution | None] = field(default_factory=dict)

    def here(self) -> dict[str, Result]:
        """Return the results of all networks on all images, computed in this process.

        Raises:
            DataError, GraphError: as evaluating does.
        """
        passes = len(self.groups)
        samples = self.progress.track(self.samples, f"validate {self.name}", passes=passes)
        measured = evaluate_in_turns(
            self._open_in_turns(self.groups),
            [islice(samples, len(self.samples)) for _ in self.groups],
            protocol=self.protocol,
            size=self.size,
            baseline=self.baseline,
            class_names=self.class_names,
            watch=self.watch,
        )
        next(samples, None)  # the stage is done
        return measured

    def on(
        self,
        cluster: Cluster,
        networks: Mapping[str, GraphOn | TorchOn],
        folder: Path,
        timed: Collection[str],
    ) -> dict[str, Result]:
        """Return the same results, computed on a cluster.

        The latency of a few images, and the pictures of those on which networks differ most, are
        taken here.

        Args:
            cluster: where.
            networks: all of them, as workers open them.
            folder: of the target.
            timed: names of the networks whose latency is wanted.

        Raises:
            ClusterError: as :meth:`Cluster.map`.
            DataError, GraphError: as evaluating does.
        """
        spread = evaluate_on(
            cluster,
            networks,
            self.samples,
            protocol=self.protocol,
            size=self.size,
            baseline=self.baseline,
            classes=len(self.class_names),
            stage=f"validate {self.name}",
            progress=self.progress,
            folder=folder,
        )
        self.executions.update(spread.executions)
        for name, found in self._look_here(timed, spread.differing).items():
            spread.scores[name].seconds.extend(found.seconds)
        return conclude(spread.scores, self.class_names, self.baseline, self.samples[-1].mask)

    def _look_here(
        self, names: Collection[str], differing: Mapping[str, Sequence[float]]
    ) -> dict[str, Score]:
        """Return what some networks score on a few images, the worst ones if these are watched."""
        chosen = pick(self.samples, TIMED_HERE)
        if self.watch is not None:
            shares = differing[self.watch.network]
            worst = sorted(range(len(shares)), key=lambda n: (-shares[n], n))[: self.watch.count]
            chosen = [self.samples[number] for number in sorted(worst)]
        groups = [[name for name in group if name in names] for group in self.groups]
        groups = [group for group in groups if group]
        if not groups:
            return {}
        samples = self.progress.track(chosen, f"latency {self.name}", passes=len(groups))
        scores, _ = collect(
            self._open_in_turns(groups),
            [islice(samples, len(chosen)) for _ in groups],
            protocol=self.protocol,
            size=self.size,
            baseline=self.baseline if self.baseline in names else None,
            classes=len(self.class_names),
            watch=self.watch,
            aloud=False,
        )
        next(samples, None)
        return scores

    def _open_in_turns(self, groups: Sequence[Sequence[str]]) -> Iterator[Mapping[str, Runner]]:
        """Yield the networks of each group, opened; the group before is dropped by then."""
        for names in groups:
            give_back()
            runners = {name: self.openers.pop(name)() for name in names}
            self.executions.update(
                {name: (run.timed or run).execution() for name, run in runners.items()}
            )
            yield with_defaults(runners)
            del runners
        give_back()
