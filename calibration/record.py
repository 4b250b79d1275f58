"""The calibration's result as a file: statistics, and all they depend on."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from deploy.calibration.errors import CalibrationError, DataError
from deploy.calibration.preprocess import Fit
from deploy.calibration.statistics import TensorStatistics, whole
from deploy.calibration.voc import Sample

FORMAT = 3


@dataclass(frozen=True, kw_only=True)
class CalibrationImage:
    """An image that the statistics come from."""

    name: str
    sha256: str  # of the file


@dataclass(frozen=True, kw_only=True)
class CalibrationKey:
    """What the statistics depend on: where two keys are equal, so are the statistics."""

    graph_sha256: str
    fit: Fit
    images: tuple[
        CalibrationImage, ...
    ]  # by name, so that the parts of a run can come in any order
    samples_per_tensor: int


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The statistics of a graph's tensors, and what they depend on."""

    key: CalibrationKey
    tensors: dict[str, TensorStatistics]

    def to_json(self) -> str:
        """Return the file's content: one line for each tensor."""
        head = json.dumps({"format": FORMAT, **asdict(self.key)}, indent=1)[:-2]
        lines = (
            f"  {json.dumps(name)}: {json.dumps(statistics.to_json(), separators=(',', ':'))}"
            for name, statistics in self.tensors.items()
        )
        return head + ',\n "tensors": {\n' + ",\n".join(lines) + "\n }\n}\n"

    @property
    def sha256(self) -> str:
        """SHA-256 of the file's content, in hexadecimal."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def read_calibration(path: Path) -> Calibration:
    """Read a calibration file.

    Raises:
        CalibrationError: it is missing, unreadable or of another format.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise CalibrationError(
                f"{path} has format {content['format']}, not {FORMAT}: delete it to calibrate anew"
            )
        key = CalibrationKey(
            graph_sha256=_text(content["graph_sha256"]),
            fit=Fit(content["fit"]),
            images=_in_order(
                CalibrationImage(name=_text(image["name"]), sha256=_text(image["sha256"]))
                for image in content["images"]
            ),
            samples_per_tensor=whole(content["samples_per_tensor"]),
        )
        if not key.images or len({image.sha256 for image in key.images}) < len(key.images):
            raise ValueError("it is of no images, or of one twice")
        tensors = {k: TensorStatistics.from_json(v) for k, v in content["tensors"].items()}
    except (
        OSError,
        LookupError,
        TypeError,
        AttributeError,
        ValueError,
        OverflowError,
        RecursionError,
    ) as error:
        if isinstance(error, CalibrationError):
            raise
        raise CalibrationError(
            f"{path} is no readable calibration file ({type(error).__name__}: {error!s:.200}): "
            "delete it to calibrate anew"
        ) from None
    return Calibration(key=key, tensors=tensors)


def merge_calibrations(parts: Sequence[tuple[str, Calibration]]) -> Calibration:
    """Return what one run over the images of all parts would have: the same, byte for byte.

    Args:
        parts: at least one, each with what errors call it.

    Raises:
        CalibrationError: the parts are of several graphs or settings, or share an image.
    """
    (first_name, first), *others = parts
    tensors = deepcopy(first.tensors)
    owners = {image.sha256: first_name for image in first.key.images}
    for name, part in others:
        for setting in ("graph_sha256", "fit", "samples_per_tensor"):
            one, other = getattr(first.key, setting), getattr(part.key, setting)
            if one != other:
                raise CalibrationError(
                    f"{name} has {setting} {other}, but {first_name} has {one}: parts can be "
                    "merged that are of one graph and were made with the same settings"
                )
        for image in part.key.images:
            if image.sha256 in owners:
                raise CalibrationError(
                    f"image {image.name} is in {name} and in {owners[image.sha256]}: it would "
                    "count twice; merge parts that share no image"
                )
            owners[image.sha256] = name
        if part.tensors.keys() != tensors.keys():
            raise CalibrationError(f"{name} has other tensors than {first_name}: make it anew")
        for tensor, statistics in tensors.items():
            statistics.merge(part.tensors[tensor])
    images = _in_order(image for _, part in parts for image in part.key.images)
    return Calibration(key=replace(first.key, images=images), tensors=tensors)


def identify(samples: list[Sample]) -> tuple[CalibrationImage, ...]:
    """Return the names of images and the hashes of their files, by name."""
    return _in_order(CalibrationImage(name=s.name, sha256=file_sha256(s.image)) for s in samples)


def _in_order(images: Iterable[CalibrationImage]) -> tuple[CalibrationImage, ...]:
    return tuple(sorted(images, key=lambda image: (image.name, image.sha256)))


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal; raises DataError where it cannot."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
