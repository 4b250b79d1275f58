"""The one way from an image to the network's input, and from its logits back to labels.

Torch, calibration, validation and prediction all go through here.
"""

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deploy.calibration.dataset import IGNORE_LABEL
from deploy.calibration.voc import UInt8Array

MEAN = (0.485, 0.456, 0.406)  # ImageNet, RGB, for values in 0…1
STD = (0.229, 0.224, 0.225)

Float32Array = NDArray[np.float32]
Size = tuple[int, int]  # height, width


class Fit(StrEnum):
    """How an image of any size becomes the network's input."""

    CROP = "crop"  # scaled to cover the input, centre cropped
    SQUASH = "squash"  # scaled to the input, aspect ratio not kept
    PAD = "pad"  # scaled to fit inside the input; right and bottom padded, and ignored


def fit_image(image: UInt8Array, fit: Fit, size: Size) -> UInt8Array:
    """Scale an image (H, W, 3), bilinear, to (height, width, 3); padding has ImageNet's mean."""
    fill = tuple(round(255 * m) for m in MEAN)
    picture = _fit(Image.fromarray(image), fit, size, Image.Resampling.BILINEAR, fill)
    return np.asarray(picture)


def fit_mask(mask: UInt8Array, fit: Fit, size: Size) -> UInt8Array:
    """Scale labels (H, W), nearest, to (height, width); padding has the ignored label."""
    return np.asarray(
        _fit(Image.fromarray(mask), fit, size, Image.Resampling.NEAREST, IGNORE_LABEL)
    )


def normalization() -> tuple[Float32Array, Float32Array]:
    """Return scale and shift, (3,) each: (x / 255 - mean) / std = x * scale + shift."""
    mean, std = np.array(MEAN, dtype=np.float32), np.array(STD, dtype=np.float32)
    scale: Float32Array = np.divide(1, 255 * std, dtype=np.float32)
    shift: Float32Array = np.divide(-mean, std, dtype=np.float32)
    return scale, shift


def normalize(image: UInt8Array) -> Float32Array:
    """Return an RGB image (H, W, 3) as the input tensor (1, 3, H, W): (x / 255 - mean) / std."""
    scale, shift = normalization()
    planes = np.empty((1, 3, *image.shape[:2]), dtype=np.float32)
    for channel in range(3):
        np.multiply(image[:, :, channel], scale[channel], out=planes[0, channel])
        planes[0, channel] += shift[channel]
    return planes


def preprocess(image: UInt8Array, fit: Fit, size: Size) -> Float32Array:
    """Return an RGB image of any size as the network's input, float32 (1, 3, height, width)."""
    return normalize(fit_image(image, fit, size))


def resize_logits(logits: Float32Array, size: Size) -> Float32Array:
    """Resize logits (C, h, w) to (C, height, width), bilinear (half-pixel centres)."""
    top, bottom, wy = _neighbours(logits.shape[1], size[0], 1.0)
    left, right, wx = _neighbours(logits.shape[2], size[1], 1.0)
    one = np.float32(1)
    rows = logits[:, :, left] * (one - wx) + logits[:, :, right] * wx
    v = wy[:, None]
    resized: Float32Array = rows[:, top] * (one - v) + rows[:, bottom] * v
    return resized


def logits_to_labels(
    logits: Float32Array, size: Size, covered: tuple[float, float] = (1.0, 1.0)
) -> UInt8Array:
    """Resize logits (C, h, w) to ``size``, bilinear (half-pixel centres), and take the argmax.

    ``covered`` is the share of the logits' height and width, from the top left, that becomes
    ``size``: what an image fills where the rest of the input was padding.

    Equal, pixel for pixel, to resizing all C planes, at a fraction of the cost: a resized logit is
    a convex combination of its four neighbours, so where one class wins (or ties as the lowest
    index) at all four, it wins in between too. Only the other pixels are interpolated.

    Returns:
        Labels, uint8 (height, width).
    """
    if logits.shape[1:] == size and covered == (1.0, 1.0):
        direct: UInt8Array = logits.argmax(axis=0).astype(np.uint8)
        return direct
    top, bottom, wy = _neighbours(logits.shape[1], size[0], covered[0])
    left, right, wx = _neighbours(logits.shape[2], size[1], covered[1])
    # (h, w, C): the argmax and the gathers below both read the classes of one pixel together
    pixels = np.ascontiguousarray(logits.transpose(1, 2, 0))
    winners: UInt8Array = pixels.argmax(axis=2).astype(np.uint8)
    firsts, seconds = winners.take(left, axis=1), winners.take(right, axis=1)
    mixed = firsts != seconds  # between two columns of a source row
    labels: UInt8Array = firsts.take(top, axis=0)
    unsure = labels != firsts.take(bottom, axis=0)
    unsure |= mixed.take(top, axis=0)
    unsure |= mixed.take(bottom, axis=0)
    y, x = np.nonzero(unsure)
    flat, row = pixels.reshape(-1, pixels.shape[2]), logits.shape[2]
    t, b, l, r = top[y] * row, bottom[y] * row, left[x], right[x]  # noqa: E741
    v, h = wy[y, None], wx[x, None]
    above = flat.take(t + l, axis=0) * (1 - h) + flat.take(t + r, axis=0) * h
    below = flat.take(b + l, axis=0) * (1 - h) + flat.take(b + r, axis=0) * h
    labels[y, x] = (above * (1 - v) + below * v).argmax(axis=1)
    return labels


def _neighbours(
    source: int, target: int, covered: float = 1.0
) -> tuple[NDArray[np.intp], NDArray[np.intp], Float32Array]:
    """Return, for each target pixel, its two source pixels and the weight of the second one."""
    # x_source = (x_target + 0.5) * source / target - 0.5, clamped: ONNX Resize, half_pixel
    position = (np.arange(target) + 0.5) * (covered * source / target) - 0.5
    position = position.clip(0, source - 1)
    first = position.astype(np.intp)
    second = np.minimum(first + 1, source - 1)
    return first, second, (position - first).astype(np.float32)


def fitted_region(shape: Size, fit: Fit, size: Size) -> Size:
    """Return height and width of the input that an image of ``shape`` fills, from the top left."""
    height, width = _scaled(shape, fit, size)
    return min(height, size[0]), min(width, size[1])


def _scaled(shape: Size, fit: Fit, size: Size) -> Size:
    """Return height and width of the scaled image, before it is cropped or padded."""
    if fit is Fit.SQUASH:
        return size
    ratios = (size[0] / shape[0], size[1] / shape[1])
    scale = max(ratios) if fit is Fit.CROP else min(ratios)
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def _fit(
    picture: Image.Image,
    fit: Fit,
    size: Size,
    resample: Image.Resampling,
    fill: int | tuple[int, ...],
) -> Image.Image:
    height, width = size
    scaled_height, scaled_width = _scaled((picture.height, picture.width), fit, size)
    scaled = picture.resize((scaled_width, scaled_height), resample)
    if fit is Fit.PAD:
        canvas = Image.new(picture.mode, (width, height), fill)
        canvas.paste(scaled, (0, 0))
        return canvas
    left, top = (scaled_width - width) // 2, (scaled_height - height) // 2
    return scaled.crop((left, top, left + width, top + height))
