"""The VOC2012 segmentation data set in its standard layout, from any folder that has it.

``JPEGImages/NAME.jpg``, ``SegmentationClass/NAME.png`` (palette index = class, 255 = ignored) and
``ImageSets/Segmentation/SPLIT.txt`` (a name a line), as in the VOC2012 development kit, section 4.
"""

import os
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

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

# What is opened at all. Pillow knows more formats, and runs another program for some (EPS).
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
MASK_FORMATS = ("PNG",)  # others lose labels
MAX_NAME = 200  # characters
MAX_PIXELS = 1024**3 // 4 // 3  # a quarter of a GiB as RGB; Pillow's own limit
MAX_ASPECT = 100  # of the sides: what is longer grows beyond all memory where it is to cover a crop
_DECODING_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, OverflowError),
    *(struct.error, zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning),
)
# Pillow warns up to twice that limit; here images beyond it are refused.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

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


def read_split(root: Path, split: str, *, missing_ok: bool = False) -> list[Sample]:
    """Return the samples of ``ImageSets/Segmentation/<split>.txt`` in the list's order.

    A line is a name, which may hold spaces; empty lines do not count.

    Args:
        root: the VOC2012 folder.
        split: the list's name.
        missing_ok: also return samples whose image or mask does not exist.

    Raises:
        DataError: there is no such list; it is empty, repeats a name or holds one that is a path;
            or an image or mask of it does not exist.
    """
    path = root / "ImageSets" / "Segmentation" / f"{split}.txt"
    if not path.is_file():
        found = sorted(p.stem for p in path.parent.glob("*.txt"))
        raise DataError(f"no split {split!r} at {path}: choose one of {', '.join(found) or 'none'}")
    names = read_names(path)
    return [_find_sample(root, name, path, missing_ok) for name in names]


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


def _find_sample(root: Path, name: str, list_path: Path, missing_ok: bool) -> Sample:
    sample = Sample(
        name=name,
        image=root / "JPEGImages" / f"{name}.jpg",
        mask=root / "SegmentationClass" / f"{name}.png",
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


@contextmanager
def _opened(path: Path, kind: str, formats: Sequence[str]) -> Iterator[Image.Image]:
    """Open a still image of bearable size; whatever its decoding raises becomes a DataError."""
    try:
        with Image.open(path, formats=formats) as image:
            _check_header(path, image, kind)
            image.verify()  # a PNG's checksums, which decoding does not look at
        with Image.open(path, formats=formats) as image:
            yield image
    except UnidentifiedImageError:
        known = ", ".join(formats)
        raise DataError(f"{path} cannot be decoded as {kind}: it is no {known}") from None
    except _DECODING_ERRORS as error:
        if isinstance(error, DataError):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} cannot be decoded as {kind}: {reason}") from None


def _check_header(path: Path, image: Image.Image, kind: str) -> None:
    """Refuse by its header what must not be decoded, or has more than one picture."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise DataError(f"{path} is {width}x{height}: {kind} has at most {MAX_PIXELS:,} pixels")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise DataError(f"{path} is {width}x{height}: one side is over {MAX_ASPECT} times the other")
    # A camera's JPEG may hold smaller copies beside the picture (MPO).
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise DataError(f"{path} has several pictures: save the one that is meant")


def read_image(path: Path) -> UInt8Array:
    """Return an image as RGB (H, W, 3), of whatever mode it was.

    An EXIF orientation is not applied: VOC's masks follow the stored pixels. Transparency is
    dropped, of 16 bits a channel in colour the upper eight are kept.

    Raises:
        DataError: the file cannot be decoded, is of a format or size that is not read, is an
            animation, or is grey with more than 8 bits.
    """
    with _opened(path, "an image", IMAGE_FORMATS) as image:
        if image.mode.startswith(("I", "F")):
            raise DataError(f"{path} has mode {image.mode}: images have 8 bits a channel")
        image.info.pop("transparency", None)  # of a palette: dropped with a warning otherwise
        return np.asarray(image.convert("RGB"))


def read_mask(path: Path, num_classes: int = len(CLASSES)) -> UInt8Array:
    """Return a mask's labels (H, W): 0 … num_classes - 1, or 255 where pixels are ignored.

    Raises:
        DataError: the file cannot be decoded, is not a palette or grey PNG of 8 bits, or has
            labels beyond the classes.
    """
    with _opened(path, "a mask", MASK_FORMATS) as image:
        if image.mode not in ("P", "L"):
            raise DataError(
                f"{path} has mode {image.mode}: masks are 8-bit palette or grey images whose "
                "values are labels"
            )
        if image.mode == "L" and image.tile[0].args != "L":
            # Pillow spreads 2 or 4 bits over 0 … 255: label 1 would become 85 or 17.
            raise DataError(f"{path} is grey with fewer than 8 bits: save the labels in 8 bits")
        labels = np.asarray(image)
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
