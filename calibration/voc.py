"""The VOC2012 segmentation data set in its standard layout, from any folder that has it.

``JPEGImages/NAME.jpg``, ``SegmentationClass/NAME.png`` (palette index = class, 255 = ignored) and
``ImageSets/Segmentation/SPLIT.txt`` (a name a line), as in the VOC2012 development kit, section 4.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from calibration.errors import DataError

CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
IGNORE_LABEL = 255
DEFAULT_ROOT = Path("data/VOCdevkit/VOC2012")
SCENES_ROOT = Path("data/scenes/VOCdevkit/VOC2012")  # drawn by `deploy export-all` for want of VOC

UInt8Array = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image of a split and its mask."""

    name: str
    image: Path
    mask: Path


def _palette() -> UInt8Array:
    """Return VOC's colour map (256, 3): a label's bits, spread over R, G and B from the top."""
    labels = np.arange(256)
    colors = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            colors[:, channel] |= ((labels >> (3 * bit + channel) & 1) << (7 - bit)).astype(
                np.uint8
            )
    return colors


PALETTE = _palette()


def lacks_voc() -> bool:
    """Say whether no VOC2012 is named by ``$VOC_ROOT`` or at its default place."""
    return not os.environ.get("VOC_ROOT") and not DEFAULT_ROOT.is_dir()


def find_voc_root(root: Path | None = None) -> Path:
    """Return the VOC2012 folder: ``root``, else ``$VOC_ROOT``, else ``data/VOCdevkit/VOC2012``.

    Without any of them, the scenes that ``deploy export-all`` drew in ``data/scenes``. Each may be
    the VOC2012 folder itself or one that holds ``VOCdevkit/VOC2012``.

    Raises:
        DataError: there is no VOC2012 folder at the first of these that is set.
    """
    if root is None and lacks_voc() and SCENES_ROOT.is_dir():
        root = SCENES_ROOT
    root = root or Path(os.environ.get("VOC_ROOT") or DEFAULT_ROOT)
    for candidate in (root, root / "VOCdevkit" / "VOC2012", root / "VOC2012"):
        if (candidate / "ImageSets" / "Segmentation").is_dir():
            return candidate
    raise DataError(
        f"no VOC2012 data set at {root} (it has no ImageSets/Segmentation): pass --voc-root DIR, "
        f"set VOC_ROOT, or run 'deploy fetch-voc data' or 'deploy scenes data/scenes'"
    )


def name_data_set(root: Path) -> str:
    """Return what reports call the data in a VOC2012 folder: drawn scenes are no VOC."""
    return "scenes" if (root.resolve().parent.parent / "scenes.json").is_file() else "VOC2012"


def read_split(root: Path, split: str) -> list[Sample]:
    """Return the samples of ``ImageSets/Segmentation/<split>.txt`` in the list's order.

    Raises:
        DataError: there is no such list; it is empty, repeats a name or holds one that is a path;
            or an image or mask of it does not exist.
    """
    path = root / "ImageSets" / "Segmentation" / f"{split}.txt"
    if not path.is_file():
        found = sorted(p.stem for p in path.parent.glob("*.txt"))
        raise DataError(f"no split {split!r} at {path}: choose one of {', '.join(found) or 'none'}")
    try:
        names = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a list of names: {error}") from None
    if not names:
        raise DataError(f"{path} lists no images: the split is empty")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path} lists {twice!r} more than once: remove the repetition")
    return [_find_sample(root, name, path) for name in names]


def pick(samples: list[Sample], count: int) -> list[Sample]:
    """Return at most ``count`` of the samples, evenly spaced, in order."""
    if len(samples) <= count:
        return samples
    return [samples[i * len(samples) // count] for i in range(count)]


def _find_sample(root: Path, name: str, list_path: Path) -> Sample:
    if "/" in name or "\\" in name or name.startswith("."):
        raise DataError(f"{list_path} lists {name!r}: names of images only, without a path")
    image = root / "JPEGImages" / f"{name}.jpg"
    mask = root / "SegmentationClass" / f"{name}.png"
    for path in (image, mask):
        if not path.is_file():
            raise DataError(f"{path} does not exist, but {list_path} lists {name!r}")
    return Sample(name=name, image=image, mask=mask)


def read_image(path: Path, *, upright: bool = False) -> UInt8Array:
    """Return an image as RGB (H, W, 3), of whatever mode it was.

    An EXIF orientation is applied only if ``upright``: VOC's masks follow the stored pixels.

    Raises:
        DataError: the file cannot be decoded, or has more than 8 bits a channel.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise DataError(f"{path} has mode {image.mode}: images have 8 bits a channel")
            image.info.pop("transparency", None)  # of a palette: dropped with a warning otherwise
            turned = ImageOps.exif_transpose(image) if upright else image
            return np.asarray(turned.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be decoded as an image: {error}") from None


def read_mask(path: Path, num_classes: int = len(CLASSES)) -> UInt8Array:
    """Return a mask's labels (H, W): 0 … num_classes - 1, or 255 where pixels are ignored.

    Raises:
        DataError: the file cannot be decoded, is not a palette or grey image of 8 bits, or has
            labels beyond the classes.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in ("P", "L"):
                raise DataError(
                    f"{path} has mode {image.mode}: masks are 8-bit palette or grey images whose "
                    "values are labels"
                )
            labels = np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be decoded as a mask: {error}") from None
    present = np.flatnonzero(np.bincount(labels.ravel(), minlength=256))
    beyond = [int(v) for v in present if v >= num_classes and v != IGNORE_LABEL]
    if beyond:
        raise DataError(
            f"{path} has label {beyond[0]}, beyond the {num_classes} classes (0 to "
            f"{num_classes - 1}, and {IGNORE_LABEL} for ignored)"
        )
    return labels


def read_sample(sample: Sample, num_classes: int = len(CLASSES)) -> tuple[UInt8Array, UInt8Array]:
    """Return a sample's image (H, W, 3) and labels (H, W).

    Raises:
        DataError: as :func:`read_image` and :func:`read_mask`, or their sizes differ.
    """
    image, mask = read_image(sample.image), read_mask(sample.mask, num_classes)
    if image.shape[:2] != mask.shape:
        raise DataError(
            f"{sample.mask} is {mask.shape[1]}x{mask.shape[0]} but its image is "
            f"{image.shape[1]}x{image.shape[0]}: they must be of one size"
        )
    return image, mask
