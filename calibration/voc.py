"""The VOC2012 segmentation data set in its standard layout, from any folder that has it.

A folder with a ``dataset.toml`` (calibration/dataset.py) has classes and places of its own. Else:
``JPEGImages/NAME.jpg``, ``SegmentationClass/NAME.png`` (palette index = class, 255 = ignored) and
``ImageSets/Segmentation/SPLIT.txt`` (a name a line), as in the VOC2012 development kit, section 4.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ImageOps

from deploy.calibration.dataset import (
    FILE_NAME,
    IGNORE_LABEL,
    SCENES_NAME,
    VOC_NAME,
    DataSet,
    read_data_set,
    voc_palette,
)
from deploy.calibration.decoding import IMAGE_FORMATS, MASK_FORMATS, opened
from deploy.calibration.errors import DataError

# http://host.robots.ox.ac.uk/pascal/VOC/voc2012/: "Download the training/validation data (2GB)"
OFFICIAL = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar"
OFFICIAL_MD5 = "6cd6e144f989b92b3379bac3b3de84fd"  # as torchvision publishes it
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
DEFAULT_ROOT = Path("data/VOCdevkit/VOC2012")
MAX_NAME = 200  # characters, of an image
SCENES_ROOT = Path("data/scenes/VOCdevkit/VOC2012")  # drawn by `deploy export-all` for want of VOC

UInt8Array = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image of a split and its mask."""

    name: str
    image: Path
    mask: Path
    num_classes: int = len(CLASSES)
    ignore: int = IGNORE_LABEL  # the mask's label for what does not count


PALETTE = voc_palette()


def lacks_voc() -> bool:
    """Say whether no VOC2012 is named by ``$VOC_ROOT`` or at its default place."""
    return not os.environ.get("VOC_ROOT") and not DEFAULT_ROOT.is_dir()


def find_voc_root(root: Path | None = None) -> Path:
    """Return the VOC2012 folder: ``root``, else ``$VOC_ROOT``, else ``data/VOCdevkit/VOC2012``.

    Without any of them, the scenes that ``deploy export-all`` drew in ``data/scenes``. Each may be
    the VOC2012 folder itself, one that holds ``VOCdevkit/VOC2012``, or one with a ``dataset.toml``.

    Raises:
        DataError: there is no such folder at the first of these that is set.
    """
    if root is None and lacks_voc() and SCENES_ROOT.is_dir():
        root = SCENES_ROOT
    root = root or Path(os.environ.get("VOC_ROOT") or DEFAULT_ROOT)
    for candidate in (root, root / "VOCdevkit" / "VOC2012", root / "VOC2012"):
        layout = candidate / "ImageSets" / "Segmentation"
        if layout.is_dir() or (candidate / FILE_NAME).is_file():
            return candidate
    raise DataError(
        f"no VOC2012 data set at {root} (it has no ImageSets/Segmentation), nor a {FILE_NAME}: "
        "pass --voc-root DIR, set VOC_ROOT, or run 'deploy fetch-voc data' or 'deploy scenes "
        "data/scenes'"
    )


def describe_data_set(root: Path) -> DataSet:
    """Return what a folder's ``dataset.toml`` says, else VOC's layout and classes.

    Raises:
        DataError: there is such a file, and it cannot be used.
    """
    if (root / FILE_NAME).is_file():
        return read_data_set(root / FILE_NAME)
    drawn = (root.resolve().parent.parent / "scenes.json").is_file()
    return DataSet(
        name=SCENES_NAME if drawn else VOC_NAME,  # drawn scenes are no VOC
        root=root,
        classes=CLASSES,
        images=root / "JPEGImages",
        masks=root / "SegmentationClass",
        splits=root / "ImageSets" / "Segmentation",
        suffixes=("jpg",),
        own=False,
    )


def name_data_set(root: Path) -> str:
    """Return what reports call the data in a folder; raises as :func:`describe_data_set`."""
    return describe_data_set(root).name


def read_split(root: Path, split: str, *, missing_ok: bool = False) -> list[Sample]:
    """Return the samples of a split's list, ``<split>.txt``, in its order.

    A line is a name, which may hold spaces; empty lines do not count.

    Args:
        root: the VOC2012 folder.
        split: the list's name.
        missing_ok: also return samples whose image or mask does not exist.

    Raises:
        DataError: there is no such list; it is empty, repeats a name or holds one that is a path;
            or an image or mask of it does not exist; or as :func:`describe_data_set`.
    """
    data = describe_data_set(root)
    path = data.splits / f"{split}.txt"
    if not path.is_file():
        found = sorted(p.stem for p in path.parent.glob("*.txt"))
        raise DataError(f"no split {split!r} at {path}: choose one of {', '.join(found) or 'none'}")
    names = read_names(path)
    return [_find_sample(data, name, path, missing_ok) for name in names]


def read_names(path: Path) -> list[str]:
    """Return the names in a list, one a line, in its order; a byte order mark is skipped.

    Raises:
        DataError: it cannot be read, is empty, repeats a name or holds one that is a path or has
            characters that cannot be printed.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a list of names: {error}") from None
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise DataError(f"{path} lists no images: the split is empty")
    for name in names:
        if "/" in name or "\\" in name or name.startswith("."):
            raise DataError(f"{path} lists {name!r}: names of images only, without a path")
        if not name.isprintable() or len(name) > MAX_NAME:
            raise DataError(
                f"{path} lists {name[:40]!r}: names have at most {MAX_NAME} characters, all of "
                "which can be printed"
            )
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path} lists {twice!r} more than once: remove the repetition")
    return names


def pick(samples: list[Sample], count: int) -> list[Sample]:
    """Return at most ``count`` of the samples, evenly spaced, in order."""
    if len(samples) <= count:
        return samples
    return [samples[i * len(samples) // count] for i in range(count)]


def _find_sample(data: DataSet, name: str, list_path: Path, missing_ok: bool) -> Sample:
    images = [data.images / f"{name}.{suffix}" for suffix in data.suffixes]
    image, *others = [path for path in images if path.exists()] or images[:1]
    if others:
        raise DataError(f"{image} and {others[0]} have one name: keep the one that is meant")
    sample = Sample(
        name=name,
        image=image,
        mask=data.masks / f"{name}.png",
        num_classes=len(data.classes),
        ignore=data.ignore,
    )
    if not missing_ok:
        check_files(sample, list_path)
    return sample


def check_files(sample: Sample, list_path: Path) -> None:
    """Raise DataError unless a sample's image and mask are there."""
    for path in (sample.image, sample.mask):
        if not path.exists():
            raise DataError(f"{path} does not exist, but {list_path} lists {sample.name!r}")
        if not path.is_file():
            raise DataError(f"{path} is no file, but {list_path} lists {sample.name!r}")


def read_image(path: Path, *, upright: bool = False) -> UInt8Array:
    """Return an image as RGB (H, W, 3), of whatever mode it was.

    An EXIF orientation is applied only if ``upright``: VOC's masks follow the stored pixels.
    Transparency is dropped, of 16 bits a channel in colour the upper eight are kept.

    Raises:
        DataError: the file cannot be decoded, is of a format or size that is not read, is an
            animation, or is grey with more than 8 bits.
    """
    with opened(path, "an image", IMAGE_FORMATS) as image:
        if image.mode.startswith(("I", "F")):
            raise DataError(f"{path} has mode {image.mode}: images have 8 bits a channel")
        image.info.pop("transparency", None)  # of a palette: dropped with a warning otherwise
        turned = ImageOps.exif_transpose(image) if upright else image
        return np.asarray(turned.convert("RGB"))


def read_mask(
    path: Path, num_classes: int = len(CLASSES), ignore: int = IGNORE_LABEL
) -> UInt8Array:
    """Return a mask's labels (H, W): 0 … num_classes - 1, or 255 where pixels are ignored.

    In the file these have the label ``ignore``.

    Raises:
        DataError: the file cannot be decoded, is not a palette or grey PNG of 8 bits, or has
            labels beyond the classes.
    """
    with opened(path, "a mask", MASK_FORMATS) as image:
        if image.mode not in ("P", "L"):
            raise DataError(
                f"{path} has mode {image.mode}: masks are 8-bit palette or grey images whose "
                "values are labels"
            )
        if image.mode == "L" and vars(image)["tile"][0].args != "L":
            # Pillow spreads 2 or 4 bits over 0 … 255: label 1 would become 85 or 17.
            raise DataError(f"{path} is grey with fewer than 8 bits: save the labels in 8 bits")
        labels = np.asarray(image)
    present = np.flatnonzero(np.bincount(labels.ravel(), minlength=256))
    beyond = [int(v) for v in present if v >= num_classes and v != ignore]
    if beyond:
        raise DataError(
            f"{path} has label {beyond[0]}, beyond the {num_classes} classes (0 to "
            f"{num_classes - 1}, and {ignore} for ignored)"
        )
    if ignore != IGNORE_LABEL:
        labels = np.where(labels == ignore, np.uint8(IGNORE_LABEL), labels)
    return labels


def read_sample(sample: Sample, num_classes: int | None = None) -> tuple[UInt8Array, UInt8Array]:
    """Return a sample's image (H, W, 3) and labels (H, W), by default of its data set's classes.

    Raises:
        DataError: as :func:`read_image` and :func:`read_mask`, or their sizes differ.
    """
    num_classes = num_classes or sample.num_classes
    image, mask = read_image(sample.image), read_mask(sample.mask, num_classes, sample.ignore)
    if image.shape[:2] != mask.shape:
        raise DataError(
            f"{sample.mask} is {mask.shape[1]}x{mask.shape[0]} but its image is "
            f"{image.shape[1]}x{image.shape[0]}: they must be of one size"
        )
    return image, mask
