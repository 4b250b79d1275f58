"""Segmentation accuracy and the fidelity of logits, accumulated image by image."""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from calibration.preprocess import Float32Array
from calibration.voc import IGNORE_LABEL, UInt8Array

Int64Array = NDArray[np.int64]


class ConfusionMatrix:
    """Pixels counted by true class (rows) and predicted class (columns), but for ignored ones."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.counts: Int64Array = np.zeros((num_classes, num_classes), dtype=np.int64)

    def update(self, truth: UInt8Array, predicted: UInt8Array) -> None:
        """Add one image's labels, two arrays of one shape; 255 in ``truth`` is ignored."""
        n = self.num_classes
        # one table for all 256 x n pairs is faster than selecting the valid pixels first
        pairs = truth.astype(np.int32) * n
        pairs += predicted
        table = np.bincount(pairs.ravel(), minlength=(IGNORE_LABEL + 1) * n)
        self.counts += table[: n * n].reshape(n, n)

    def iou(self) -> NDArray[np.float64]:
        """IoU of each class, TP / (TP + FP + FN); NaN for one that the ground truth has not.

        Thus every graph compared on the same images is averaged over the same classes: one stray
        pixel of an absent class would else move the mean by a whole class.
        """
        correct = np.diag(self.counts).astype(np.float64)
        union = self.counts.sum(axis=0) + self.counts.sum(axis=1) - correct
        iou = np.full(self.num_classes, np.nan)
        np.divide(correct, union, out=iou, where=self.counts.sum(axis=1) > 0)
        return iou

    def mean_iou(self) -> float:
        """Mean IoU over the classes that occur in the ground truth; NaN if there is none."""
        iou = self.iou()
        return float(np.nanmean(iou)) if np.isfinite(iou).any() else math.nan

    def pixel_accuracy(self) -> float:
        """Share of the counted pixels whose class is right; NaN if there is none."""
        total = self.counts.sum()
        return float(np.trace(self.counts) / total) if total else math.nan


@dataclass(kw_only=True)
class Fidelity:
    """How closely one network's logits and labels follow another's."""

    signal: float = 0.0  # sum of squares of the reference's logits
    noise: float = 0.0  # sum of squares of the difference
    equal_pixels: int = 0
    pixels: int = 0
    _shape_matches: bool = field(default=True)

    def update(
        self,
        reference: Float32Array,
        logits: Float32Array,
        reference_labels: UInt8Array,
        labels: UInt8Array,
    ) -> None:
        """Add one image's logits (C, h, w) and labels (H, W)."""
        self.equal_pixels += int(np.count_nonzero(reference_labels == labels))
        self.pixels += labels.size
        if reference.shape != logits.shape:
            self._shape_matches = False  # a graph that upsamples inside: labels still compare
            return
        flat = reference.ravel()
        difference = flat - logits.ravel()
        self.signal += float(flat @ flat)
        self.noise += float(difference @ difference)

    @property
    def agreement(self) -> float:
        """Share of pixels with the same label, ignored pixels included; NaN without pixels."""
        return self.equal_pixels / self.pixels if self.pixels else math.nan

    @property
    def sqnr_db(self) -> float:
        """Signal to quantization noise of the logits, 10·log10(Σ ref² / Σ (ref - x)²), in dB.

        Infinite for equal logits, NaN where the two networks' logits differ in shape.
        """
        if not self._shape_matches or not self.signal:
            return math.nan
        return 10 * math.log10(self.signal / self.noise) if self.noise else math.inf
