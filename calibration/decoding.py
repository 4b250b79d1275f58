"""Opening image files that may be anything: known formats, bearable sizes, one kind of error."""

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageFile, UnidentifiedImageError

from deploy.calibration.errors import DataError

# What is opened at all. Pillow knows more formats, and runs another program for some (EPS).
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
MASK_FORMATS = ("PNG",)  # others lose labels
MAX_PIXELS = 1024**3 // 4 // 3  # a quarter of a GiB as RGB; Pillow's own limit
MAX_ASPECT = 100  # of the sides: what is longer grows beyond all memory where it is to cover a crop
_DECODING_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, OverflowError),
    *(struct.error, zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning),
)
# Pillow warns up to twice that limit; here images beyond it are refused.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


@contextmanager
def opened(path: Path, kind: str, formats: tuple[str, ...]) -> Iterator[ImageFile.ImageFile]:
    """Open a still image of bearable size; whatever its decoding raises becomes a DataError.

    ``kind`` is what messages call it, with its article; ``formats`` are Pillow's names.
    """
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
        raise DataError(
            f"{path} is {width}x{height}: one side is over {MAX_ASPECT} times the other"
        )
    # A camera's JPEG may hold smaller copies beside the picture (MPO).
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise DataError(f"{path} has several pictures: save the one that is meant")
