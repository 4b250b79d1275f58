"""The images that are evaluated."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.calibration import (
    DataError,
    DataSet,
    Sample,
    describe_data_set,
    find_voc_root,
    read_split,
)
from deploy.calibration.record import CalibrationImage, identify
from deploy.calibration.screening import screen_aloud
from deploy.calibration.voc import pick
from deploy.validate.protocol import Protocol


@dataclass(frozen=True, kw_only=True)
class EvaluationSet:
    """The images that are evaluated."""

    data: DataSet
    split: str
    samples: list[Sample]
    images: tuple[CalibrationImage, ...]
    skipped: tuple[str, ...] = ()  # names of bad samples that are left out

    @classmethod
    def find(
        cls, voc_root: Path | None, split: str, limit: int | None, *, skip_bad: bool = False
    ) -> "EvaluationSet":
        """Read a split, or ``limit`` of its images, evenly spaced; raises DataError.

        With ``skip_bad`` those whose image or mask is bad are left out and told of.
        """
        root = find_voc_root(voc_root)
        samples = read_split(root, split, missing_ok=skip_bad)
        if limit is not None and limit < 1:
            raise DataError(f"--limit {limit}: at least one image must be evaluated")
        if limit is not None:
            samples = pick(samples, limit)
        what = f"split {split!r}, to evaluate"
        screened = screen_aloud(samples, what, masks=True, skip_bad=skip_bad)
        return cls(
            data=describe_data_set(root),
            split=split,
            samples=screened.samples,
            images=identify(screened.samples),
            skipped=tuple(screened.skipped),
        )

    def describe(self, protocol: Protocol, size: tuple[int, int]) -> dict[str, Any]:
        """Return what of the data a result depends on, as plain values."""
        listing = "".join(f"{image.name} {image.sha256}\n" for image in self.images)
        skipped = {"count": len(self.skipped), "names": list(self.skipped)}
        return {
            "name": self.data.name,
            "split": self.split,
            "images": len(self.samples),
            "images_sha256": hashlib.sha256(listing.encode()).hexdigest(),
            "protocol": protocol.value,
            "input_size": list(size),
            "classes": len(self.data.classes),
            **({"skipped": skipped} if self.skipped else {}),
        }
