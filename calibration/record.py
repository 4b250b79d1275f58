"""The calibration's result as a file: statistics, and all they depend on."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from calibration.errors import CalibrationError
from calibration.preprocess import Fit
from calibration.statistics import TensorStatistics
from calibration.voc import Sample

FORMAT = 2


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
    images: tuple[CalibrationImage, ...]
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
            graph_sha256=content["graph_sha256"],
            fit=Fit(content["fit"]),
            images=tuple(CalibrationImage(**image) for image in content["images"]),
            samples_per_tensor=content["samples_per_tensor"],
        )
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
            f"{path} is no readable calibration file ({type(error).__name__}: {error}): delete it "
            "to calibrate anew"
        ) from None
    return Calibration(key=key, tensors=tensors)


def identify(samples: list[Sample]) -> tuple[CalibrationImage, ...]:
    """Return the names of images and the hashes of their files."""
    return tuple(CalibrationImage(name=s.name, sha256=file_sha256(s.image)) for s in samples)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
