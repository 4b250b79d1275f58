"""The images on which an INT8 graph differs most from torch, as small pictures to look at."""

import hashlib
import heapq
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from deploy.calibration import DataSet
from deploy.calibration.dataset import IGNORE_LABEL
from deploy.calibration.voc import UInt8Array
from deploy.validate.evaluate import Seen

COUNT = 4  # images that are kept
SIDE = 288  # of a picture, pixels, the longer one
GREYS = 16  # of the image under the differences: few, for a small file
WORSE, BETTER, OTHER = range(GREYS, GREYS + 3)  # entries of the differences' palette
DIFFERENCES = {  # against the ground truth, where torch's label and INT8's are not the same
    WORSE: (228, 60, 60),  # torch is right
    BETTER: (40, 140, 240),  # INT8 is right
    OTHER: (240, 176, 32),  # neither is, or the pixel is ignored
}


@dataclass(frozen=True, kw_only=True)
class Examples:
    """What is said of the images, and the pictures by file name."""

    record: dict[str, Any]
    pictures: Mapping[str, bytes]


class WorstImages:
    """Watches an evaluation and keeps the images on which two networks differ most.

    Args:
        reference: the name of one network.
        network: the name of the other, an INT8 graph.
        data: whose classes and colours the labels have.
        count: how many images are kept.
    """

    def __init__(self, reference: str, network: str, data: DataSet, count: int = COUNT) -> None:
        self.reference, self.network, self.count = reference, network, count
        self.classes, self.palette = data.classes, data.palette
        self._heap: list[tuple[float, int, Seen]] = []  # the least different first
        self._seen = 0

    def __call__(self, seen: Seen) -> None:
        """Keep an image if it is one of the worst so far; of equals, the earlier one."""
        if self.network not in seen.labels:
            return  # the turn of others
        share = np.mean(seen.labels[self.reference] != seen.labels[self.network])
        self._seen += 1
        entry = (float(share), -self._seen, seen)
        if len(self._heap) < self.count:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heappushpop(self._heap, entry)

    def examples(self) -> Examples:
        """Return the images, the worst first, with their pictures."""
        pictures: dict[str, bytes] = {}
        images, labels = [], set()
        for rank, (share, _, seen) in enumerate(sorted(self._heap, reverse=True), start=1):
            torch, int8 = seen.labels[self.reference], seen.labels[self.network]
            files = {
                "image": (f"{rank}-image.jpg", _photograph(seen.picture)),
                "truth": (f"{rank}-truth.png", _labels(seen.truth, self.palette)),
                "torch": (f"{rank}-torch.png", _labels(torch, self.palette)),
                "int8": (f"{rank}-int8.png", _labels(int8, self.palette)),
                "difference": (f"{rank}-difference.png", _difference(seen, torch, int8)),
            }
            pictures |= dict(files.values())
            for array in (seen.truth, torch, int8):
                labels |= set(np.unique(_small(array)).tolist())
            images.append(
                {
                    "name": seen.name,
                    "disagreement": share,
                    "pictures": {
                        kind: {"file": name, "sha256": hashlib.sha256(content).hexdigest()}
                        for kind, (name, content) in files.items()
                    },
                }
            )
        legend = [
            {
                "name": "ignored" if label == IGNORE_LABEL else self.classes[label],
                "color": _hex(self.palette[label]),
            }
            for label in sorted(labels)
        ]
        record = {"graph": self.network, "images": images, "legend": legend}
        return Examples(record=record, pictures=pictures)


def _hex(color: Iterable[int]) -> str:
    """Return a colour as CSS writes it."""
    return "#" + "".join(f"{value:02x}" for value in color)


def _size(array: UInt8Array) -> tuple[int, int]:
    """Return width and height of the picture of an array (H, W, …)."""
    height, width = array.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _small(labels: UInt8Array) -> UInt8Array:
    """Return labels (H, W) at the size of a picture, nearest."""
    picture = Image.fromarray(labels).resize(_size(labels), Image.Resampling.NEAREST)
    return np.asarray(picture)


def _photograph(pixels: UInt8Array) -> bytes:
    picture = Image.fromarray(pixels).resize(_size(pixels), Image.Resampling.LANCZOS)
    return _encoded(picture, "JPEG", quality=72, optimize=True)


def _labels(labels: UInt8Array, palette: UInt8Array) -> bytes:
    """Return labels (H, W) in their colours, (256, 3)."""
    picture = Image.fromarray(_small(labels)).convert("P")
    picture.putpalette(palette.tobytes())
    return _encoded(picture, "PNG", optimize=True)


def _difference(seen: Seen, torch: UInt8Array, int8: UInt8Array) -> bytes:
    """Return the image, pale, with the pixels coloured on which the two networks differ."""
    grey = Image.fromarray(seen.picture).convert("L").resize(_size(seen.picture))
    truth, torch, int8 = _small(seen.truth), _small(torch), _small(int8)
    content = np.asarray(grey) // (256 // GREYS)
    differs = torch != int8
    content = np.where(differs, OTHER, content)
    content = np.where(differs & (torch == truth), WORSE, content)
    content = np.where(differs & (int8 == truth), BETTER, content)
    picture = Image.fromarray(content.astype(np.uint8)).convert("P")
    pale = [110 + round(140 * i / (GREYS - 1)) for i in range(GREYS)]
    colors = [(v, v, v) for v in pale] + list(DIFFERENCES.values())
    picture.putpalette([value for color in colors for value in color])
    return _encoded(picture, "PNG", optimize=True)


def _encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    encoded = io.BytesIO()
    picture.save(encoded, kind, **options)
    return encoded.getvalue()
