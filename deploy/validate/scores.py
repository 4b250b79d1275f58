"""What networks score: on one image, over all of them, and as figures."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from deploy.calibration.errors import DataError
from deploy.validate.metrics import (
    ConfusionMatrix,
    Estimate,
    Fidelity,
    Int64Array,
    paired_bootstrap,
)


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
class ImageScore:
    """What one network scored on one image."""

    counts: Int64Array  # (C, C), see ConfusionMatrix
    fidelity: Fidelity  # to the baseline; of no image where there is none


@dataclass(kw_only=True)
class Score:
    """The running sums of one network, and the pixel counts of each image."""

    confusion: ConfusionMatrix
    images: list[Int64Array] = field(default_factory=list)
    fidelity: Fidelity = field(default_factory=Fidelity)
    seconds: list[float] = field(default_factory=list)  # that the network took

    def add(self, image: ImageScore) -> None:
        """Add what the next image scored."""
        self.images.append(self.confusion.add(image.counts))
        self.fidelity.add(image.fidelity)

    @property
    def latency_ms(self) -> float:
        """Median over the images; NaN where the network was not timed."""
        return 1000 * statistics.median(self.seconds) if self.seconds else math.nan

    def result(self, class_names: list[str], baseline: "Score | None") -> Result:
        """Return the figures, as a cost against those of the baseline."""
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
            latency_ms=self.latency_ms,
        )


def conclude(
    scores: Mapping[str, Score], class_names: list[str], baseline: str | None, mask: object
) -> dict[str, Result]:
    """Return the figures of all networks; ``mask`` is the last image's.

    Raises:
        DataError: no mask labels a pixel.
    """
    if scores and not any(score.confusion.counts.any() for score in scores.values()):
        raise DataError(f"{mask} and all other masks label no pixel: mIoU is undefined")
    reference = None if baseline is None else scores[baseline]
    return {name: score.result(class_names, reference) for name, score in scores.items()}


def _plain(estimate: Estimate | None) -> dict[str, float | None] | None:
    """Return an estimate as plain values; null if it has none itself."""
    if estimate is None or not math.isfinite(estimate.value):
        return None
    return {name: _finite(value) for name, value in asdict(estimate).items()}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
