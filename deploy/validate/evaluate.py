"""Graphs times images: accuracy against the masks, fidelity to a baseline, latency."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.calibration.dataset import IGNORE_LABEL
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
from deploy.validate.metrics import ConfusionMatrix, Fidelity, count_pixels
from deploy.validate.protocol import Protocol
from deploy.validate.scores import ImageScore, Result, Score, conclude
from deploy.validate.turns import KeptLogits

TIMED_IMAGES = 10  # where a network is run for its latency alone


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One image as it was evaluated, everything in the frame in which labels are compared."""

    name: str
    picture: UInt8Array  # (H, W, 3)
    truth: UInt8Array  # (H, W), 255 is ignored
    labels: Mapping[str, UInt8Array]  # of each network, (H, W)


Watch = Callable[[Seen], None]


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
    scores, mask = collect(
        groups,
        passes,
        protocol=protocol,
        size=size,
        baseline=baseline,
        classes=len(class_names),
        watch=watch,
    )
    return conclude(scores, class_names, baseline, mask)


def collect(
    groups: Iterator[Mapping[str, Runner]],
    passes: Sequence[Iterable[Sample]],
    *,
    protocol: Protocol,
    size: Size,
    baseline: str | None,
    classes: int,
    watch: Watch | None = None,
    aloud: bool = True,
) -> tuple[dict[str, Score], Path | None]:
    """Return the running sums of every network and the last mask, as :func:`evaluate_in_turns`.

    With ``aloud`` a mask that labels no pixel is told of.
    """
    scores: dict[str, Score] = {}
    mask = None
    with KeptLogits() as kept:
        for samples in passes:
            runners = next(groups)
            scores |= {name: Score(confusion=ConfusionMatrix(classes)) for name in runners}
            times = {name: scores[name].seconds for name in runners}
            cold: dict[str, list[float]] = {name: [] for name in runners}
            for number, sample in enumerate(samples):
                mask = sample.mask
                view = read_view(sample, protocol, size, classes)
                is_first = baseline is None or baseline in runners
                if aloud and is_first and not view.is_labelled:
                    tell_unlabelled(sample)
                # the first image warms the networks up
                logits = _run_timed(runners, view.image, times if number else cold)
                for name, values in logits.items():
                    check_logits(name, values, classes)
                if baseline is not None and len(passes) > 1:
                    if is_first:
                        kept.append(logits[baseline])
                    else:
                        logits[baseline] = kept[number]
                labels = view.labels(logits)
                for name in runners:
                    scores[name].add(score(view, logits, labels, name, baseline, classes))
                if watch is not None:
                    picture, truth = view.picture, view.truth
                    watch(Seen(name=sample.name, picture=picture, truth=truth, labels=labels))
            if number == 0:  # there is no other
                _run_timed(runners, view.image, times)
            del runners
    return scores, mask


@dataclass(frozen=True, kw_only=True)
class View:
    """An image as the networks' input, and as it is compared."""

    image: Float32Array  # (1, 3, H, W)
    picture: UInt8Array  # (H, W, 3), in the frame in which labels are compared
    truth: UInt8Array  # (H, W)
    frame: Size  # to which logits are resized: the truth's, and what a fit has padded

    @property
    def is_labelled(self) -> bool:
        """Whether a pixel counts for mIoU."""
        return bool((self.truth != IGNORE_LABEL).any())

    def labels(self, logits: Mapping[str, Float32Array]) -> dict[str, UInt8Array]:
        """Return each network's labels (H, W)."""
        height, width = self.truth.shape
        return {
            name: logits_to_labels(values, self.frame)[:height, :width]
            for name, values in logits.items()
        }


def read_view(sample: Sample, protocol: Protocol, size: Size, num_classes: int) -> View:
    """Read an image and its mask, and fit them; raises DataError."""
    pixels, mask = read_sample(sample, num_classes)
    fitted = fit_image(pixels, protocol.fit, size)
    image = normalize(fitted)
    if protocol is Protocol.NATIVE:
        return View(image=image, picture=pixels, truth=mask, frame=(mask.shape[0], mask.shape[1]))
    height, width = size
    if protocol is Protocol.PAD:
        height, width = fitted_region(mask.shape, Fit.PAD, size)
    truth = fit_mask(mask, protocol.fit, size)[:height, :width]
    return View(image=image, picture=fitted[:height, :width], truth=truth, frame=size)


def score(
    view: View,
    logits: Mapping[str, Float32Array],
    labels: Mapping[str, UInt8Array],
    name: str,
    baseline: str | None,
    classes: int,
) -> ImageScore:
    """Return what a network scored on an image, given the logits and labels of all."""
    fidelity = Fidelity()
    if baseline is not None:
        fidelity.update(logits[baseline], logits[name], labels[baseline], labels[name])
    return ImageScore(counts=count_pixels(view.truth, labels[name], classes), fidelity=fidelity)


def tell_unlabelled(sample: Sample) -> None:
    """Warn of a mask of ignored pixels only, whose image counts for fidelity alone."""
    LOGGER.warning("  %s labels no pixel: it plays no part in mIoU", sample.mask)


def _run_timed(
    runners: Mapping[str, Runner], image: Float32Array, seconds: Mapping[str, list[float]]
) -> dict[str, Float32Array]:
    """Return each network's logits; append the seconds that they took, or that ``timed`` takes."""
    logits = {}
    for name, run in runners.items():
        start = time.perf_counter()
        logits[name] = run(image)
        if run.timed is None:
            seconds[name].append(time.perf_counter() - start)
        elif len(seconds[name]) < TIMED_IMAGES:
            start = time.perf_counter()
            run.timed(image)
            seconds[name].append(time.perf_counter() - start)
    return logits


def check_logits(name: str, logits: Float32Array, num_classes: int) -> None:
    """Raise GraphError unless a network gives a logit for each class."""
    if logits.shape[0] == num_classes:
        return
    if logits.shape[-1] == num_classes:
        raise GraphError(
            f"{name} gives its logits with the classes last, {logits.shape}: leave out the "
            "Transpose at its end, or export it with channels first"
        )
    raise GraphError(
        f"{name} gives {logits.shape[0]} logits a pixel, but there are {num_classes} classes: it "
        "cannot be scored on this data"
    )
