"""Labels of a whole image, whatever its size, from a network whose input has one size."""

from collections.abc import Iterator

import numpy as np
from PIL import Image

from deploy.calibration.preprocess import (
    Fit,
    Float32Array,
    Size,
    fitted_region,
    logits_to_labels,
    normalize,
    preprocess,
)
from deploy.calibration.voc import UInt8Array
from deploy.errors import GraphError
from deploy.runtimes.runner import Runner

OVERLAP = 0.125  # of a window, at least, that the next one covers as well
LARGEST_COUNT = 256  # of classes: labels have 8 bits


def label_image(
    runner: Runner, image: UInt8Array, fit: Fit, size: Size, logits_size: Size
) -> UInt8Array:
    """Return the labels of an image (H, W, 3), uint8 (H, W).

    What each fit does to an image is undone: *squash* sees it whole, *pad* in a part of the input,
    and *crop* in overlapping windows of the input's aspect ratio, so that nothing is left out.

    Args:
        runner: the network.
        image: RGB, uint8.
        fit: how images become inputs.
        size: height and width of the network's input.
        logits_size: of its logits.

    Raises:
        GraphError: the logits are not finite, or not of 2 to 256 classes.
    """
    shape = (image.shape[0], image.shape[1])
    if fit is Fit.CROP:
        return logits_to_labels(_logits_of_windows(runner, image, size, logits_size), shape)
    logits = run_checked(runner, preprocess(image, fit, size))
    region = fitted_region(shape, fit, size)
    return logits_to_labels(logits, shape, (region[0] / size[0], region[1] / size[1]))


def run_checked(runner: Runner, image: Float32Array) -> Float32Array:
    """Return logits (C, h, w) that labels can be taken from, else raise GraphError."""
    logits = runner(image)
    if not 2 <= len(logits) <= LARGEST_COUNT:
        raise GraphError(
            f"the network gives {len(logits)} classes: logits of 2 to {LARGEST_COUNT} are expected"
        )
    if not np.isfinite(logits).all():
        raise GraphError("the network gives logits that are not finite: its precision is too low")
    return logits


def _logits_of_windows(
    runner: Runner, image: UInt8Array, size: Size, logits_size: Size
) -> Float32Array:
    """Return the logits of a whole image, in cells as large as those of one window.

    A window's shorter side, relative to the input's, is the image's: it is what *crop* keeps, at
    the same scale. Where windows overlap their logits are averaged, each with a weight that falls
    towards the window's edge, so that no seam shows.
    """
    scale = max(size[0] / image.shape[0], size[1] / image.shape[1])
    height, width = (
        max(cells, round(cells * length * scale / extent))
        for cells, length, extent in zip(logits_size, image.shape[:2], size, strict=True)
    )
    weight = np.outer(*(_falling_weight(cells) for cells in logits_size)).astype(np.float32)
    total = np.zeros((height, width), dtype=np.float32)
    merged: Float32Array | None = None
    picture = Image.fromarray(image)
    across, down = picture.width / width, picture.height / height  # pixels of a cell
    for top in _starts(height, logits_size[0]):
        for left in _starts(width, logits_size[1]):
            bottom, right = top + logits_size[0], left + logits_size[1]
            box = (left * across, top * down, right * across, bottom * down)
            box = (*box[:2], min(box[2], picture.width), min(box[3], picture.height))
            window = picture.resize(size[::-1], Image.Resampling.BILINEAR, box=box)
            logits = run_checked(runner, normalize(np.asarray(window)))
            if merged is None:
                merged = np.zeros((len(logits), height, width), dtype=np.float32)
            merged[:, top:bottom, left:right] += logits * weight
            total[top:bottom, left:right] += weight
    assert merged is not None
    merged /= total
    return merged


def _starts(length: int, window: int) -> Iterator[int]:
    """Yield where windows begin that cover ``length`` cells, evenly spaced."""
    overlap = int(OVERLAP * window)
    steps = 0 if length == window else -(-(length - window) // (window - overlap))
    for i in range(steps + 1):
        yield round(i * (length - window) / max(1, steps))


def _falling_weight(cells: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return 1 at the middle of a window, and towards its edges less, but not 0."""
    return 1 - np.abs(2 * (np.arange(cells) + 0.5) / cells - 1) * (cells - 1) / cells


def show_share(share: float) -> str:
    """Format a share of an image's area, above 0: "12.3%", or "<0.1%"."""
    return f"{100 * share:.1f}%" if share >= 0.0005 else "<0.1%"
