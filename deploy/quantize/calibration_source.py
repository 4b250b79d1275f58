"""The images that calibrate: which ones, and how they become inputs."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from deploy.calibration import (
    CalibrationError,
    DataError,
    DataSet,
    Fit,
    Sample,
    describe_data_set,
    find_voc_root,
    preprocess,
    read_split,
)
from deploy.calibration.preprocess import Float32Array, Size
from deploy.calibration.record import CalibrationImage, identify
from deploy.calibration.screening import screen_aloud
from deploy.calibration.voc import pick, read_image
from deploy.progress import Progress
from deploy.store.artifacts import Network

EVALUATION_SPLIT = "val"
Part = tuple[int, int]  # I and N of the I-th part of N


@dataclass(frozen=True, kw_only=True)
class CalibrationSource:
    """The images that calibrate: those of a whole run, or one part of them."""

    data: DataSet
    split: str
    samples: list[Sample]
    images: tuple[CalibrationImage, ...]
    others: list[Sample]  # of the split: they calibrate nothing
    part: Part | None = None
    skipped: tuple[str, ...] = ()  # names of bad images that were picked and are left out

    @classmethod
    def find(
        cls,
        voc_root: Path | None,
        split: str,
        count: int,
        part: Part | None = None,
        *,
        skip_bad: bool = False,
    ) -> "CalibrationSource":
        """Pick ``count`` images of ``split``, evenly spaced over its list; of these, one part.

        With ``skip_bad`` those that cannot be read are left out and told of: others do not take
        their place.

        Raises:
            DataError: there is no such data.
            CalibrationError: the split has fewer images, or shares one with the evaluation split;
                or there is no such part.
        """
        root = find_voc_root(voc_root)
        listed = read_split(root, split, missing_ok=skip_bad)
        if not 1 <= count <= len(listed):
            raise CalibrationError(
                f"{count} calibration images asked for, but split {split!r} of {root} has "
                f"{len(listed)}: pass --images with 1 to {len(listed)}"
            )
        samples = pick(listed, count)
        try:
            evaluated = {s.name for s in read_split(root, EVALUATION_SPLIT, missing_ok=True)}
        except DataError:
            evaluated = set()  # no such split: validation checks again, by content
        shared = sorted(evaluated & {s.name for s in samples})
        if shared:
            raise CalibrationError(
                f"{len(shared)} calibration images of split {split!r} are also in "
                f"{EVALUATION_SPLIT!r} ({shared[0]}, …): accuracy would be flattered; calibrate "
                "with images of 'train'"
            )
        taken = {s.name for s in samples}
        others = [s for s in listed if s.name not in taken]
        if part:
            samples = _part_of(samples, part)
        what = f"split {split!r}, to calibrate"
        screened = screen_aloud(samples, what, masks=False, skip_bad=skip_bad)
        return cls(
            data=describe_data_set(root),
            split=split,
            samples=screened.samples,
            images=identify(screened.samples),
            others=others,
            part=part,
            skipped=tuple(screened.skipped),
        )

    def screen_others(self, count: int) -> "CalibrationSource":
        """Return the source with ``count`` of the others, without those that are bad.

        Raises:
            DataError: they are all bad.
        """
        if not self.others:
            return self
        tuning = pick(self.others, count)
        what = f"split {self.split!r}, to tune the gate"
        screened = screen_aloud(tuning, what, masks=True, skip_bad=True)
        return replace(self, others=screened.samples)

    def path(self, target: Network) -> Path:
        """Where a target's statistics of these images go."""
        return target.calibration_part(*self.part) if self.part else target.calibration

    def inputs(
        self, fit: Fit, size: Size, progress: Progress, stage: str
    ) -> Iterator[Float32Array]:
        """Yield each image as the network's input, float32 (1, 3, height, width).

        Raises:
            DataError: an image cannot be read.
            CalibrationError: after the last image, if every one was of one colour throughout.
        """
        varied = False
        for sample in progress.track(self.samples, stage):
            image = read_image(sample.image)
            varied = varied or bool(np.ptp(image, axis=(0, 1)).any())
            yield preprocess(image, fit, size)
        refuse_uniform(varied, len(self.samples))


def refuse_uniform(varied: bool, images: int) -> None:
    """Raise CalibrationError unless one of the images had more than one colour."""
    if not varied:
        raise CalibrationError(
            f"each of the {images} calibration images has one colour throughout: no range worth "
            "having comes from them; calibrate with photographs"
        )


def _part_of(samples: list[Sample], part: Part) -> list[Sample]:
    """Return every N-th of the samples, from the I-th."""
    number, parts = part
    if not 1 <= number <= parts <= len(samples):
        raise CalibrationError(
            f"there is no part {number}/{parts} of {len(samples)} images: parts are 1/N to N/N, "
            "each with at least one image"
        )
    return samples[number - 1 :: parts]
