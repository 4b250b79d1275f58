"""Segmentation accuracy and the fidelity of logits, accumulated image by image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deploy.calibration.dataset import IGNORE_LABEL
from deploy.calibration.preprocess import Float32Array
from deploy.calibration.voc import UInt8Array

Int64Array = NDArray[np.int64]
Float64Array = NDArray[np.float64]
RESAMPLES = 1000
CONFIDENCE = 0.95


class ConfusionMatrix:
    """Pixels counted by true class (rows) and predicted class (columns), but for ignored ones."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.counts: Int64Array = np.zeros((num_classes, num_classes), dtype=np.int64)

    def update(self, truth: UInt8Array, predicted: UInt8Array) -> Int64Array:
        """Add one image's labels, two arrays of one shape; 255 in ``truth`` is ignored.

        Returns:
            What this image's IoU is made of, (3, classes): see :func:`marginals`.
        """
        return self.add(count_pixels(truth, predicted, self.num_classes))

    def add(self, counts: Int64Array) -> Int64Array:
        """Add one image's counts, (C, C); returns what :meth:`update` does."""
        self.counts += counts
        return marginals(counts)

    def iou(self) -> Float64Array:
        """IoU of each class, TP / (TP + FP + FN); NaN for one that the ground truth has not.

        Thus every graph compared on the same images is averaged over the same classes: one stray
        pixel of an absent class would else move the mean by a whole class.
        """
        return _iou(marginals(self.counts))

    def mean_iou(self) -> float:
        """Mean IoU over the classes that occur in the ground truth; NaN if there is none."""
        return float(_mean_over_classes(self.iou()))

    def pixel_accuracy(self) -> float:
        """Share of the counted pixels whose class is right; NaN if there is none."""
        total = self.counts.sum()
        return float(np.trace(self.counts) / total) if total else math.nan


def count_pixels(truth: UInt8Array, predicted: UInt8Array, num_classes: int) -> Int64Array:
    """Return one image's pixels by true and predicted class, (C, C), but for ignored ones."""
    n = num_classes
    # one table for all 256 x n pairs is faster than selecting the valid pixels first
    pairs = truth.astype(np.int32) * n
    pairs += predicted
    table = np.bincount(pairs.ravel(), minlength=(IGNORE_LABEL + 1) * n)
    counts: Int64Array = table[: n * n].reshape(n, n)
    return counts


@dataclass(kw_only=True)
class Fidelity:
    """How closely one network's logits and labels follow another's.

    The sums of an image depend on nothing but the image, those of several on their order alone: not
    on how many threads numpy has, as a product of its linear algebra may.
    """

    signal: float = 0.0  # sum of squares of the reference's logits
    noise: float = 0.0  # sum of squares of the difference
    energy: float = 0.0  # sum of squares of the followed network's logits
    product: float = 0.0  # sum of products of the two
    equal_pixels: int = 0
    pixels: int = 0
    shape_matches: bool = True  # of the logits of all images so far

    def update(
        self,
        reference: Float32Array,
        logits: Float32Array,
        reference_labels: UInt8Array,
        labels: UInt8Array,
    ) -> None:
        """Add one image's logits (C, h, w) and labels (H, W)."""
        found = Fidelity(
            equal_pixels=int(np.count_nonzero(reference_labels == labels)), pixels=labels.size
        )
        if reference.shape == logits.shape:
            found.signal = _sum(np.square(reference))
            found.noise = _sum(np.square(reference - logits))
            found.energy = _sum(np.square(logits))
            found.product = _sum(reference * logits)
        else:
            found.shape_matches = False  # a graph that upsamples inside: labels still compare
        self.add(found)

    def add(self, other: "Fidelity") -> None:
        """Add what another has of further images; sums of floats, so their order matters."""
        self.signal += other.signal
        self.noise += other.noise
        self.energy += other.energy
        self.product += other.product
        self.equal_pixels += other.equal_pixels
        self.pixels += other.pixels
        self.shape_matches = self.shape_matches and other.shape_matches

    @property
    def agreement(self) -> float:
        """Share of pixels with the same label, ignored pixels included; NaN without pixels."""
        return self.equal_pixels / self.pixels if self.pixels else math.nan

    @property
    def sqnr_db(self) -> float:
        """Signal to quantization noise of the logits, 10·log10(Σ ref² / Σ (ref - x)²), in dB.

        Infinite for equal logits, NaN where the two networks' logits differ in shape.
        """
        if not self.shape_matches or not self.signal:
            return math.nan
        return 10 * math.log10(self.signal / self.noise) if self.noise else math.inf

    @property
    def cosine(self) -> float:
        """Cosine similarity of the logits, Σ ref·x / √(Σ ref² · Σ x²), in -1…1.

        Blind to a common factor, which SQNR counts as noise and the labels do not see either. NaN
        where the two networks' logits differ in shape or one's are all zero.
        """
        if not self.shape_matches or not self.signal or not self.energy:
            return math.nan
        # of float32 sums: the last digits may pass one
        return min(1.0, max(-1.0, self.product / math.sqrt(self.signal * self.energy)))


def _sum(values: Float32Array) -> float:
    return float(values.sum(dtype=np.float64))


def logits_sqnr(reference: Sequence[Float32Array], logits: Sequence[Float32Array]) -> float:
    """Return the SQNR of a network's logits on some images, in dB, as :class:`Fidelity` has it."""
    fidelity = Fidelity()
    nothing = np.zeros(0, dtype=np.uint8)
    for a, b in zip(reference, logits, strict=True):
        fidelity.update(a, b, nothing, nothing)
    return fidelity.sqnr_db


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure of the evaluated images, and the interval in which others like them would put it.

    ``low`` and ``high`` are NaN where fewer than two images leave nothing to resample.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class MeanIouCost:
    """What a network loses against its baseline: the difference and the ratio of their mIoU.

    Both are shares: a drop of 0.01 is one point.
    """

    drop: Estimate  # baseline - network
    ratio: Estimate  # network / baseline


def paired_bootstrap(
    baseline: Sequence[Int64Array],
    network: Sequence[Int64Array],
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> MeanIouCost:
    """Return what a network's mIoU loses against the baseline's, with bootstrap intervals.

    Both networks have seen the same images, so the images are resampled in pairs, with replacement,
    and both mIoUs are computed anew on each resample, over the classes in its ground truth, as
    :meth:`ConfusionMatrix.mean_iou` does. That an image is hard for both then cancels out. The
    interval lies between the percentiles of the resampled figures (Efron, Bootstrap Methods:
    Another Look at the Jackknife, Annals of Statistics 7, 1979; Efron and Tibshirani, An
    Introduction to the Bootstrap, 1993, chapter 13).

    Args:
        baseline: an image's pixels each, (3, classes), as :func:`marginals` gives them.
        network: the same of the network, for the same images in the same order.
        resamples: how many sets of as many images are drawn.
        confidence: share of the resamples inside the interval.
        seed: of the draw; equal seeds draw equal images.

    Raises:
        ValueError: there are no images, or not as many for one network as for the other.
    """
    if not baseline or len(baseline) != len(network):
        raise ValueError(f"{len(baseline)} and {len(network)} images cannot be paired")
    count = len(baseline)
    generator = np.random.default_rng(seed)
    # how often each image is drawn, (resamples, images); the first row is the set itself
    weights = np.ones((resamples + 1, count))
    weights[1:] = generator.multinomial(count, np.full(count, 1 / count), size=resamples)
    baseline_miou, network_miou = (
        _weighted_miou(counts, weights) for counts in (baseline, network)
    )
    ratio = np.full(resamples + 1, np.nan)
    np.divide(network_miou, baseline_miou, out=ratio, where=baseline_miou > 0)
    return MeanIouCost(
        drop=_estimate(baseline_miou - network_miou, count, confidence),
        ratio=_estimate(ratio, count, confidence),
    )


def _weighted_miou(counts: Sequence[Int64Array], weights: Float64Array) -> Float64Array:
    """Return the mIoU (resamples,) of images (3, C) each that count ``weights`` times."""
    pixels = np.tensordot(np.stack(counts, axis=1), weights, axes=(1, 1))  # (3, C, resamples)
    return _mean_over_classes(_iou(pixels.swapaxes(1, 2)))


def _estimate(figures: Float64Array, images: int, confidence: float) -> Estimate:
    """Return the first figure, and the interval that holds a share of the others."""
    resampled = figures[1:][np.isfinite(figures[1:])]
    low, high = math.nan, math.nan
    if images > 1 and resampled.size:
        low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()
    return Estimate(value=float(figures[0]), low=low, high=high)


def marginals(counts: Int64Array) -> Int64Array:
    """Return correct, true and predicted pixels of each class, (3, C), of counts (C, C).

    An image's IoU needs no more of its counts, which with many classes are too many to be kept.
    """
    return np.stack([counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)])


def _iou(pixels: Int64Array | Float64Array) -> Float64Array:
    """Return IoU (…, C) of pixel counts (3, …, C); NaN where the ground truth has not the class."""
    correct, true, predicted = pixels
    iou = np.full(correct.shape, np.nan)
    np.divide(correct, true + predicted - correct, out=iou, where=true > 0)
    return iou


def _mean_over_classes(iou: Float64Array) -> Float64Array:
    """Return the mean (…) of what is not NaN in IoU (…, C); NaN where there is none."""
    present = np.isfinite(iou)
    mean = np.full(iou.shape[:-1], np.nan)
    np.divide(np.where(present, iou, 0).sum(-1), present.sum(-1), out=mean, where=present.any(-1))
    return mean
