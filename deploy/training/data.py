"""Samples for training: images of several data sets, scaled, cropped, flipped and recoloured."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from deploy.calibration.dataset import IGNORE_LABEL
from deploy.calibration.preprocess import MEAN, normalize
from deploy.calibration.voc import Sample, UInt8Array, read_image, read_sample
from deploy.training.config import Augmentation, DataRoot

PREFETCHED = 3  # batches made ahead of the network


def augment(
    rng: np.random.Generator, image: UInt8Array, mask: UInt8Array, augmentation: Augmentation
) -> tuple[UInt8Array, UInt8Array]:
    """Return a random crop (crop, crop, 3) and its labels (crop, crop).

    The zoom starts from the deployment scale: both the squash to size x size and the longer side at
    ``size`` occur, with all stretchings in between. Beyond the image there is ImageNet's mean
    colour, and the ignored label.
    """
    height, width = mask.shape
    size, crop = augmentation.size, augmentation.crop
    squash = rng.random()  # 0: the longer side becomes `size`; 1: both sides do
    zoom = np.exp(rng.uniform(*np.log(augmentation.scale)))
    even = size / max(height, width)
    scale_y = zoom * even ** (1 - squash) * (size / height) ** squash
    scale_x = zoom * even ** (1 - squash) * (size / width) ** squash
    # the crop in the source's pixels: only what is kept gets resampled
    top, left = _corner(rng, mask, (crop / scale_y, crop / scale_x))
    box = (left, top, left + crop / scale_x, top + crop / scale_y)
    # an image that is enlarged is blurred already
    detail = min(1.0, rng.uniform(augmentation.resolution, 1) * max(1.0, scale_y, scale_x))
    image, mask = _cut(image, mask, box, crop, detail)
    if rng.random() < 0.5:
        image, mask = image[:, ::-1], mask[:, ::-1]
    return _recolor(rng, image, augmentation.color), mask


def _corner(
    rng: np.random.Generator, mask: UInt8Array, extent: tuple[float, float]
) -> tuple[float, float]:
    """Return a crop's top left corner: half the time anywhere, else about an object's pixel."""
    anchor = None
    if rng.random() < 0.5:
        objects = np.flatnonzero((mask[::8, ::8] != 0) & (mask[::8, ::8] != IGNORE_LABEL))
        if objects.size:
            chosen = int(objects[rng.integers(objects.size)])
            columns = mask[::8, ::8].shape[1]
            anchor = (8 * (chosen // columns), 8 * (chosen % columns))
    corner = []
    for axis in (0, 1):
        slack = mask.shape[axis] - extent[axis]
        if slack <= 0:  # the image fits: it lies anywhere inside the crop
            corner.append(rng.uniform(slack, 0))
        elif anchor is None:
            corner.append(rng.uniform(0, slack))
        else:
            wanted = anchor[axis] - extent[axis] * rng.uniform(0.2, 0.8)
            corner.append(min(max(wanted, 0.0), slack))
    return corner[0], corner[1]


def _cut(
    image: UInt8Array,
    mask: UInt8Array,
    box: tuple[float, float, float, float],
    crop: int,
    detail: float,
) -> tuple[UInt8Array, UInt8Array]:
    """Resample ``box`` (left, top, right, bottom; it may reach beyond the image) to crop x crop.

    With ``detail`` below 1 the image goes through ``detail`` times as many pixels along each axis.
    """
    height, width = mask.shape
    scale_x, scale_y = crop / (box[2] - box[0]), crop / (box[3] - box[1])
    inside = (max(box[0], 0.0), max(box[1], 0.0), min(box[2], width), min(box[3], height))
    x0, y0 = round((inside[0] - box[0]) * scale_x), round((inside[1] - box[1]) * scale_y)
    x1, y1 = round((inside[2] - box[0]) * scale_x), round((inside[3] - box[1]) * scale_y)
    target = (max(1, x1 - x0), max(1, y1 - y0))
    fill = tuple(round(255 * m) for m in MEAN)
    canvas = Image.new("RGB", (crop, crop), fill)
    labels = Image.new("L", (crop, crop), IGNORE_LABEL)
    bilinear, nearest = Image.Resampling.BILINEAR, Image.Resampling.NEAREST
    coarse = (max(1, round(detail * target[0])), max(1, round(detail * target[1])))
    picture = Image.fromarray(image).resize(coarse, bilinear, box=inside)
    canvas.paste(picture if coarse == target else picture.resize(target, bilinear), (x0, y0))
    labels.paste(Image.fromarray(mask).resize(target, nearest, box=inside), (x0, y0))
    return np.asarray(canvas), np.asarray(labels)


def _recolor(rng: np.random.Generator, image: UInt8Array, strength: float) -> UInt8Array:
    """Change brightness, contrast, saturation and tint at random."""
    brightness, contrast, saturation = 1 + rng.uniform(-strength, strength, 3)
    tint = 1 + rng.uniform(-0.2 * strength, 0.2 * strength, 3)
    pixels: NDArray[np.float32] = image.astype(np.float32)
    grey = pixels.mean(axis=2, keepdims=True)
    mean = float(grey.mean())
    pixels = grey + np.float32(saturation) * (pixels - grey)
    pixels = mean + np.float32(contrast) * (pixels - mean)
    pixels *= (brightness * tint).astype(np.float32)
    return pixels.clip(0, 255).astype(np.uint8)


def _read(picture: Sample | Path) -> tuple[UInt8Array, UInt8Array]:
    """Return an image and its mask; that of a photograph without one is ignored everywhere."""
    if not isinstance(picture, Path):
        return read_sample(picture)
    image = read_image(picture, upright=True)
    return image, np.full(image.shape[:2], IGNORE_LABEL, dtype=np.uint8)


class Batch(NamedTuple):
    """What one step of training sees."""

    images: Tensor  # float32, normalized, (N, 3, crop, crop)
    labels: Tensor  # int64, (N, crop, crop)
    retain: Tensor  # bool, (N,): whether the sample's root says so


class Batches:
    """Batches of training samples, made ahead of time in threads.

    Sample j of step i depends on the seed, i and j alone: a resumed run sees what an uninterrupted
    one would have seen.
    """

    def __init__(
        self, roots: Sequence[DataRoot], augmentation: Augmentation, batch_size: int, seed: int
    ) -> None:
        self._sources = [root.pictures() for root in roots]
        self._retain = [root.retain for root in roots]
        self._augmentations = [
            replace(augmentation, scale=root.zoom or augmentation.scale) for root in roots
        ]
        weights: NDArray[np.float64] = np.array([root.weight for root in roots])
        self._shares = weights / weights.sum()
        self._batch_size, self._seed = batch_size, seed

    def sample(self, step: int, number: int) -> tuple[Tensor, Tensor, bool]:
        """Return one sample: input, labels, and whether its root says ``retain``."""
        rng = np.random.default_rng([self._seed, step, number])
        chosen = int(rng.choice(len(self._sources), p=self._shares))
        source = self._sources[chosen]
        image, mask = _read(source[rng.integers(len(source))])
        image, mask = augment(rng, image, mask, self._augmentations[chosen])
        inputs = torch.from_numpy(normalize(image))[0]
        return inputs, torch.from_numpy(mask.astype(np.int64)), self._retain[chosen]

    def batch(self, step: int) -> Batch:
        """Return the samples of one step."""
        images, labels, retain = zip(
            *(self.sample(step, number) for number in range(self._batch_size)), strict=True
        )
        return Batch(torch.stack(images), torch.stack(labels), torch.tensor(retain))

    def stream(self, start: int, stop: int, workers: int) -> Iterator[Batch]:
        """Yield the batches of steps start … stop - 1 in order, made by ``workers`` threads."""
        with ThreadPoolExecutor(workers) as pool:
            ahead = PREFETCHED + workers
            pending: list[Future[Batch]] = []
            try:
                for step in range(start, stop):
                    pending.append(pool.submit(self.batch, step))
                    if len(pending) > ahead:
                        yield pending.pop(0).result()
                while pending:
                    yield pending.pop(0).result()
            finally:
                for future in pending:
                    future.cancel()
