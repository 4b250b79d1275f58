"""How INT8 graphs do against the float graph: their figures, and which layers harm them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx

from deploy.calibration import Sample
from deploy.calibration.preprocess import Float32Array
from deploy.calibration.voc import pick
from deploy.cluster.client import Cluster
from deploy.progress import Progress
from deploy.quantize.calibration_source import CalibrationSource
from deploy.quantize.plan import Int8Plan
from deploy.quantize.preparation import Prepared, input_samples, read_inputs
from deploy.quantize.sensitivity import Logits, rank_layers
from deploy.quantize.spread_ranking import rank_on
from deploy.runtimes.onnxruntime import OnnxRunner
from deploy.runtimes.thread_counts import threads_for
from deploy.validate.evaluate import collect, evaluate
from deploy.validate.protocol import Protocol
from deploy.validate.scores import Result, conclude
from deploy.validate.side_by_side import TIMED_HERE
from deploy.validate.spread_evaluation import GraphOn, evaluate_on

RANKING_IMAGES = 4  # on which layers are ranked
FLOAT, INT8 = "fp32", "int8"


class Judge:
    """Measures INT8 graphs against the float graph."""

    def __init__(
        self,
        prepared: Prepared,
        tuning: Sequence[Sample],
        classes: Sequence[str],
        progress: Progress,
    ) -> None:
        self.prepared, self.tuning, self.progress = prepared, tuning, progress
        self.classes = list(classes)
        self.name, self.folder = prepared.target.name, prepared.target.folder
        self.fit = prepared.calibration.key.fit
        self.cluster = prepared.cluster
        if self.cluster is None:
            self.float = OnnxRunner(prepared.graph.model)

    def measure(
        self, plan: Int8Plan, exclude: Sequence[str], samples: Sequence[Sample], label: str
    ) -> Result:
        """Return how a plan's graph does on images, compared with the float graph."""
        model, _ = plan.build(exclude)
        if self.cluster is not None:
            return self._measure_on(self.cluster, model, list(samples), label)
        return evaluate(
            {FLOAT: self.float, INT8: OnnxRunner(model)},
            self.progress.track(list(samples), label),
            protocol=Protocol(self.fit.value),
            size=self.prepared.graph.input_size,
            baseline=FLOAT,
            class_names=self.classes,
        )[INT8]

    def _measure_on(
        self, cluster: Cluster, model: onnx.ModelProto, samples: list[Sample], label: str
    ) -> Result:
        """Return the same by way of a cluster; the latency is this machine's."""
        folder, graphs = (
            self.prepared.target.folder,
            {FLOAT: self.prepared.graph.model, INT8: model},
        )
        networks = {
            name: GraphOn(file=cluster.put_graph(folder, graph), threads=threads_for(graph))
            for name, graph in graphs.items()
        }
        protocol, size = Protocol(self.fit.value), self.prepared.graph.input_size
        spread = evaluate_on(
            cluster,
            networks,
            samples,
            protocol=protocol,
            size=size,
            baseline=FLOAT,
            classes=len(self.classes),
            stage=label,
            progress=self.progress,
            folder=folder,
        )
        Path(networks[INT8].file.path).unlink(missing_ok=True)  # there may be dozens of them
        timed, _ = collect(
            iter([{INT8: OnnxRunner(model)}]),
            [pick(samples, TIMED_HERE)],
            protocol=protocol,
            size=size,
            baseline=None,
            classes=len(self.classes),
            aloud=False,
        )
        spread.scores[INT8].seconds = timed[INT8].seconds
        return conclude(spread.scores, self.classes, FLOAT, samples[-1].mask)[INT8]

    def rank(self, plan: Int8Plan, source: CalibrationSource) -> list[str]:
        """Return the convolutions, the most harmful first."""
        stage = f"rank layers {self.name}"
        if self.cluster is not None:
            samples = input_samples(source, RANKING_IMAGES)
            harms = rank_on(
                self.cluster, plan, samples, self.fit, stage, self.progress, self.folder
            )
            return [harm.node for harm in harms]
        images = read_inputs(self.prepared, source, RANKING_IMAGES)

        def track(names: Sequence[str]) -> Iterator[str]:
            yield from self.progress.track(list(names), stage)

        reference = [self.float(image) for image in images]
        return [harm.node for harm in rank_layers(plan, reference, images, _logits, track)]


def _logits(model: onnx.ModelProto, images: Sequence[Float32Array]) -> Logits:
    runner = OnnxRunner(model)
    return [runner(image) for image in images]
