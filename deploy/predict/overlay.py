"""Labels as pictures: a mask in VOC's palette, and the image with its classes drawn over it."""

import io
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deploy.calibration.voc import PALETTE, UInt8Array

OPACITY = 0.5  # of the colours over the image
SMALLEST_TEXT = 14  # pixels
TEXTS_A_SIDE = 40  # in a large image, so that the legend can be read when it is scaled down


def encode_mask(labels: UInt8Array) -> bytes:
    """Return labels (H, W) as a PNG of mode P with VOC's palette: palette index = label."""
    picture = Image.fromarray(labels)  # mode L
    picture.putpalette(PALETTE.tobytes())
    return _png(picture)


def encode_overlay(image: UInt8Array, labels: UInt8Array, legend: Mapping[int, str]) -> bytes:
    """Return :func:`draw_overlay` as a PNG."""
    return _png(draw_overlay(image, labels, legend), compress_level=1)  # quick: for the eye only


def draw_overlay(image: UInt8Array, labels: UInt8Array, legend: Mapping[int, str]) -> Image.Image:
    """Return the image with its labels' colours over it, and below it a legend.

    The image keeps its size and place, at the top left: the legend hides nothing of it. Where two
    classes meet there is a white line.

    Args:
        image: RGB (H, W, 3), uint8.
        labels: (H, W), uint8.
        legend: label -> text of each class to name, in this order.
    """
    colors = Image.fromarray(PALETTE[labels])
    blended = np.array(Image.blend(Image.fromarray(image), colors, OPACITY))
    blended[_borders(labels)] = 255
    return _with_legend(Image.fromarray(blended), legend)


def _borders(labels: UInt8Array) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Return the pixels whose right or lower neighbour has another label."""
    borders = np.zeros(labels.shape, dtype=bool)
    borders[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    borders[:-1] |= labels[:-1] != labels[1:]
    return borders


def _with_legend(picture: Image.Image, legend: Mapping[int, str]) -> Image.Image:
    """Return the picture with as many lines below it as the legend takes, wider if it must be."""
    size = max(SMALLEST_TEXT, round(max(picture.size) / TEXTS_A_SIDE))
    font, gap = ImageFont.load_default(size), size // 2
    entry = size + gap + round(max(map(font.getlength, legend.values()))) + 2 * gap
    width = max(picture.width, entry + gap)
    a_line = (width - gap) // entry
    line = size + gap
    height = -(-len(legend) // a_line) * line + gap
    whole = Image.new("RGB", (width, picture.height + height), "white")
    whole.paste(picture)
    draw = ImageDraw.Draw(whole)
    for number, (label, text) in enumerate(legend.items()):
        x = gap + number % a_line * entry
        y = picture.height + gap + number // a_line * line
        color = tuple(PALETTE[label].tolist())
        draw.rectangle((x, y, x + size - 1, y + size - 1), fill=color, outline="black")
        draw.text((x + size + gap, y + size // 2), text, "black", font, anchor="lm")
    return whole


def _png(picture: Image.Image, **options: int) -> bytes:
    encoded = io.BytesIO()
    picture.save(encoded, "PNG", **options)
    return encoded.getvalue()
