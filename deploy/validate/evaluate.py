"""Graphs times images: accuracy against the masks, fidelity to a baseline, latency."""

import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from deploy.calibration.dataset import IGNORE_LABEL
from deploy.calibration.errors import DataError
from deploy.calibration.preprocess import (
    Fit,
    Float32Array,
    Size,
    fit_image,
    fit_mask,
    fitted_region,
    logits_to_labels,
    normalize,
)
from deploy.calibration.voc import CLASSES, Sample, UInt8Array, read_sample
from deploy.errors import GraphError
from deploy.progress import LOGGER
from deploy.runtimes.runner import Runner
from deploy.validate.metrics import (
    ConfusionMatrix,
    Estimate,
    Fidelity,
    Int64Array,
    paired_bootstrap,
)
from deploy.validate.protocol import Protocol
from deploy.validate.turns import KeptLogits

TIMED_IMAGES = 10  # where a network is run for its latency alone


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one network scored; shares and IoU in 0…1, NaN where a figure has no meaning."""

    miou: float  # over the classes that occur in the ground truth
    miou_drop: Estimate | None  # the baseline's minus this one's; None for the baseline itself
    miou_ratio: Estimate | None  # this one's over the baseline's
    per_class_iou: dict[str, float]
    pixel_accuracy: float
    agreement: float  # share of pixels with the baseline's label
    sqnr_db: float  # of the logits, against the baseline's
    cosine: float  # similarity of the logits to the baseline's
    latency_ms: float  # median over the images, of the network alone

    def to_json(self) -> dict[str, Any]:
        """Return plain values; what is not finite becomes null."""
        return {
            "miou": _finite(self.miou),
            "miou_drop": _plain(self.miou_drop),
            "miou_ratio": _plain(self.miou_ratio),
            "per_class_iou": {name: _finite(v) for name, v in self.per_class_iou.items()},
            "pixel_accuracy": _finite(self.pixel_accuracy),
            "agreement": _finite(self.agreement),
            "sqnr_db": _finite(self.sqnr_db),
            "cosine": _finite(self.cosine),
            "latency_ms": _finite(self.latency_ms),
        }


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One image as it was evaluated, everything in the frame in which labels are compared."""

    name: str
    picture: UInt8Array  # (H, W, 3)
    truth: UInt8Array  # (H, W), 255 is ignored
    labels: Mapping[str, UInt8Array]  # of each network, (H, W)


Watch = Callable[[Seen], None]


@dataclass(kw_only=True)
class _Score:
    """The running sums of one network, and the pixel counts of each image."""

    confusion: ConfusionMatrix
    images: list[Int64Array] = field(default_factory=list)
    fidelity: Fidelity = field(default_factory=Fidelity)
    seconds: list[float] = field(default_factory=list)

    def result(self, class_names: list[str], baseline: "_Score | None") -> Result:
        per_class = self.confusion.iou().tolist()
        cost = None
        if baseline is not None and baseline is not self:
            cost = paired_bootstrap(baseline.images, self.images)
        return Result(
            miou=self.confusion.mean_iou(),
            miou_drop=cost.drop if cost else None,
            miou_ratio=cost.ratio if cost else None,
            per_class_iou=dict(zip(class_names, per_class, strict=True)),
            pixel_accuracy=self.confusion.pixel_accuracy(),
            agreement=self.fidelity.agreement,
            sqnr_db=self.fidelity.sqnr_db,
            cosine=self.fidelity.cosine,
            latency_ms=1000 * statistics.median(self.seconds),
        )


def evaluate(
    runners: Mapping[str, Runner],
    samples: Iterable[Sample],
    *,
    protocol: Protocol,
    size: Size,
    baseline: str | None,
    class_names: list[str] | None = None,
    watch: Watch | None = None,
) -> dict[str, Result]:
    """Run every network on every image, one image in memory at a time.

    Args:
        runners: the networks by name.
        samples: at least one image with its mask.
        protocol: how images and masks are fitted and where labels are compared.
        size: height and width of the networks' input.
        baseline: the name in ``runners`` of the network that drop, ratio, agreement, SQNR and
            cosine similarity refer to, or None.
        class_names: VOC's by default.
        watch: is shown each image after all networks have seen it.

    Raises:
        DataError: an image or a mask cannot be used, or no mask labels a pixel.
        GraphError: a network does not give a logit for each class, or fails on an image.
    """
    return evaluate_in_turns(
        iter([runners]),
        [samples],
        protocol=protocol,
        size=size,
        baseline=baseline,
        class_names=class_names,
        watch=watch,
    )


def evaluate_in_turns(
    groups: Iterator[Mapping[str, Runner]],
    passes: Sequence[Iterable[Sample]],
    *,
    protocol: Protocol,
    size: Size,
    baseline: str | None,
    class_names: list[str] | None = None,
    watch: Watch | None = None,
) -> dict[str, Result]:
    """Run every network on every image as :func:`evaluate`, one group of networks at a time.

    Args:
        groups: the networks by name; a group is taken when the one before it has been dropped.
        passes: for each group the same samples.
        protocol: see :func:`evaluate`.
        size: the same.
        baseline: the same; it is in the first group.
        class_names: the same.
        watch: is shown each image by each group, with the labels of that and of the baseline.

    Raises:
        DataError, GraphError: as :func:`evaluate`.
    """
    class_names = class_names or list(CLASSES)
    scores: dict[str, _Score] = {}
    with KeptLogits() as kept:
        for samples in passes:
            runners = next(groups)
            scores |= {
                name: _Score(confusion=ConfusionMatrix(len(class_names))) for name in runners
            }
            _warm_up(runners, size, len(class_names))
            for number, sample in enumerate(samples):
                image, picture, truth = _read(sample, protocol, size, len(class_names))
                frame = truth.shape if protocol is Protocol.NATIVE else size
                is_first = baseline is None or baseline in runners
                if is_first and not (truth != IGNORE_LABEL).any():  # they count for fidelity alone
                    LOGGER.warning("  %s labels no pixel: it plays no part in mIoU", sample.mask)
                logits = {
                    name: _run_timed(run, image, scores[name].seconds)
                    for name, run in runners.items()
                }
                if baseline is not None and len(passes) > 1:
                    if is_first:
                        kept.append(logits[baseline])
                    else:
                        logits[baseline] = kept[number]
                labels = {
                    name: logits_to_labels(values, frame)[: truth.shape[0], : truth.shape[1]]
                    for name, values in logits.items()
                }
                for name in runners:
                    score = scores[name]
                    score.images.append(score.confusion.update(truth, labels[name]))
                    if baseline is not None:
                        score.fidelity.update(
                            logits[baseline], logits[name], labels[baseline], labels[name]
                        )
                if watch is not None:
                    watch(Seen(name=sample.name, picture=picture, truth=truth, labels=labels))
            del runners
    if scores and not any(score.confusion.counts.any() for score in scores.values()):
        raise DataError(f"{sample.mask} and all other masks label no pixel: mIoU is undefined")
    reference = None if baseline is None else scores[baseline]
    return {name: score.result(class_names, reference) for name, score in scores.items()}


def _read(
    sample: Sample, protocol: Protocol, size: Size, num_classes: int
) -> tuple[Float32Array, UInt8Array, UInt8Array]:
    """Return an image as the networks' input, and as it is compared: (H, W, 3) and its labels."""
    pixels, mask = read_sample(sample, num_classes)
    fitted = fit_image(pixels, protocol.fit, size)
    if protocol is Protocol.NATIVE:
        return normalize(fitted), pixels, mask
    height, width = size
    if protocol is Protocol.PAD:
        height, width = fitted_region(mask.shape, Fit.PAD, size)
    truth = fit_mask(mask, protocol.fit, size)
    return normalize(fitted), fitted[:height, :width], truth[:height, :width]


def _run_timed(run: Runner, image: Float32Array, seconds: list[float]) -> Float32Array:
    """Return the logits; append the seconds that they took, or that ``run.timed`` takes."""
    start = time.perf_counter()
    logits = run(image)
    if run.timed is None:
        seconds.append(time.perf_counter() - start)
    elif len(seconds) < TIMED_IMAGES:
        start = time.perf_counter()
        run.timed(image)
        seconds.append(time.perf_counter() - start)
    return logits


def _warm_up(runners: Mapping[str, Runner], size: Size, num_classes: int) -> None:
    """Run each network once, so that the first image is timed like the others."""
    image = np.zeros((1, 3, *size), dtype=np.float32)
    for name, run in runners.items():
        logits = run(image)
        if run.timed is not None:
            run.timed(image)
        if logits.shape[0] != num_classes and logits.shape[-1] == num_classes:
            raise GraphError(
                f"{name} gives its logits with the classes last, {logits.shape}: leave out the "
                "Transpose at its end, or export it with channels first"
            )
        if logits.shape[0] != num_classes:
            raise GraphError(
                f"{name} gives {logits.shape[0]} logits a pixel, but there are {num_classes} "
                "classes: it cannot be scored on this data"
            )


def _plain(estimate: Estimate | None) -> dict[str, float | None] | None:
    """Return an estimate as plain values; null if it has none itself."""
    if estimate is None or not math.isfinite(estimate.value):
        return None
    return {name: _finite(value) for name, value in asdict(estimate).items()}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
