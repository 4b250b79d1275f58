"""A sheet to look at: image, ground truth and prediction side by side, in the data set's colours.

``python -m deploy.contact_sheet --weights W --voc-root DIR --out sheet.png`` draws the torch
network's labels for a few images of a split, each squashed to the network's input. The sheet holds
the images themselves: it goes where they may go.
"""

import io
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image, ImageDraw, ImageFont

from deploy import models
from deploy.calibration import (
    IGNORE_LABEL,
    DataSet,
    Fit,
    describe_data_set,
    find_voc_root,
    read_split,
)
from deploy.calibration.preprocess import fit_image, fit_mask, logits_to_labels, normalize
from deploy.calibration.voc import Sample, UInt8Array, pick, read_sample
from deploy.errors import USER_ERRORS
from deploy.runtimes.runner import Runner
from deploy.runtimes.torch import TorchRunner
from deploy.store.artifacts import DEFAULT_OUT
from deploy.store.files import write_whole

GAP = 4  # pixels between the pictures
LINE = 20  # height of a line of the legend


def draw_sheet(
    network: Runner,
    samples: list[Sample],
    data: DataSet,
    *,
    side: int = 500,
    cell: int = 200,
    triples: int = 2,
) -> Image.Image:
    """Return the sheet: rows of image | ground truth | prediction, and a legend of their classes.

    Args:
        network: gives logits (C, h, w) for an input (1, 3, side, side).
        samples: what to draw, at least one.
        data: the data set that they are of, for names and colours.
        side: of the network's input, pixels; images and masks are squashed to it.
        cell: side of each picture on the sheet, pixels.
        triples: how many images in a row.

    Raises:
        DataError: an image or a mask cannot be used.
    """
    step = cell + GAP
    columns, rows = min(triples, len(samples)), -(-len(samples) // triples)
    sheet = Image.new("RGB", (3 * columns * step + GAP, rows * step + GAP), "white")
    seen: set[int] = set()
    palette = data.palette
    for number, sample in enumerate(samples):
        pixels, mask = read_sample(sample)
        image = fit_image(pixels, Fit.SQUASH, (side, side))
        truth = fit_mask(mask, Fit.SQUASH, (side, side))
        predicted = logits_to_labels(network(normalize(image)), (side, side))
        seen.update(np.unique(truth).tolist(), np.unique(predicted).tolist())
        row, column = divmod(number, columns)
        for place, picture in enumerate((image, palette[truth], palette[predicted])):
            at = (3 * column + place) * step + GAP, row * step + GAP
            sheet.paste(_scaled(picture, cell, smooth=place == 0), at)
    names = {**dict(enumerate(data.classes)), IGNORE_LABEL: "ignored"}
    return _with_legend(sheet, {label: (names[label], palette[label]) for label in sorted(seen)})


def _scaled(picture: UInt8Array, cell: int, *, smooth: bool) -> Image.Image:
    """Return a picture (H, W, 3) at the size of a cell; labels keep their colours."""
    resample = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    return Image.fromarray(picture).resize((cell, cell), resample)


def _with_legend(sheet: Image.Image, labels: dict[int, tuple[str, UInt8Array]]) -> Image.Image:
    """Return the sheet with a line below that names the colours, or as many as it takes."""
    font = ImageFont.load_default()
    width = LINE + GAP + round(max(font.getlength(name) for name, _ in labels.values())) + 2 * GAP
    a_line = max(1, (sheet.width - GAP) // width)
    height = -(-len(labels) // a_line) * LINE + GAP
    whole = Image.new("RGB", (sheet.width, sheet.height + height), "white")
    whole.paste(sheet)
    draw = ImageDraw.Draw(whole)
    for number, (name, color) in enumerate(labels.values()):
        x, y = GAP + number % a_line * width, sheet.height + number // a_line * LINE
        draw.rectangle((x, y, x + LINE - GAP, y + LINE - GAP), fill=tuple(color.tolist()))
        draw.text((x + LINE + GAP, y + LINE // 2 - 2), name, "black", font, anchor="lm")
    return whole


def contact_sheet(
    weights: Annotated[Path | None, typer.Option(metavar="PATH", help="A checkpoint.")] = None,
    variant: Annotated[str, typer.Option(metavar="VARIANT")] = models.DEFAULT_VARIANT,
    voc_root: Annotated[Path | None, typer.Option(metavar="DIR")] = None,
    split: str = "val",
    images: Annotated[int, typer.Option(min=1, help="Evenly spaced over the split.")] = 12,
    out: Annotated[Path, typer.Option(metavar="PATH")] = DEFAULT_OUT / "contact-sheet.png",
) -> None:
    """Draw image, ground truth and prediction for a few images of a split, as a PNG."""
    root = find_voc_root(voc_root)
    data = describe_data_set(root)
    module, _ = models.build_with_weights(variant, weights, len(data.classes))
    samples = pick(read_split(root, split), images)
    encoded = io.BytesIO()
    draw_sheet(TorchRunner(module), samples, data).save(encoded, "PNG")
    write_whole(out, encoded.getvalue())


if __name__ == "__main__":
    try:
        typer.run(contact_sheet)
    except USER_ERRORS as error:
        sys.exit(f"{type(error).__name__}: {error}")
