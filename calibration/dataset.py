"""A data set of one's own: ``dataset.toml`` in its folder says what its classes are, and where.

A folder without that file is VOC2012's layout with VOC's classes (calibration/voc.py). The file's
keys are in docs/own-data.md.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.calibration.errors import DataError

FILE_NAME = "dataset.toml"
IGNORE_LABEL = 255  # of every mask once it is read, whatever a data set's file calls it
MAX_CLASSES = IGNORE_LABEL  # labels are 8 bits, and one is for what is ignored
VOC_NAME, SCENES_NAME = "VOC2012", "scenes"
KEYS = ("name", "classes", "ignore", "colors", "images", "masks", "splits", "suffixes")
SUFFIXES = ("jpg", "jpeg", "png")
RESERVED = ",|"  # they part names in graphs' metadata and in tables

Color = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """What a data set consists of; paths are those of its folders."""

    name: str  # what reports call it
    root: Path
    classes: tuple[str, ...]  # by label
    ignore: int = IGNORE_LABEL  # label of the pixels that do not count
    colors: tuple[Color, ...] | None = None  # RGB by label; None: VOC's colour map
    images: Path
    masks: Path
    splits: Path  # lists <split>.txt
    suffixes: tuple[str, ...]  # of images, without the dot
    own: bool = True  # described by a file; False: VOC's layout

    @property
    def palette(self) -> NDArray[np.uint8]:
        """The colours (256, 3) of labels; those that are no class have VOC's."""
        palette = voc_palette()
        if self.colors is not None:
            palette[: len(self.colors)] = self.colors
        return palette


def voc_palette() -> NDArray[np.uint8]:
    """Return VOC's colour map (256, 3): a label's bits, spread over R, G and B from the top."""
    labels = np.arange(256)
    colors = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            colors[:, channel] |= ((labels >> (3 * bit + channel) & 1) << (7 - bit)).astype(
                np.uint8
            )
    return colors


def read_data_set(path: Path) -> DataSet:
    """Read a ``dataset.toml``; relative folders in it start at its own.

    Raises:
        DataError: it cannot be read, lacks a key, has an unknown one, or a value that cannot be.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # editors on Windows mark it
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # TOML's own error, and that of UTF-8
        raise DataError(f"{path} is no readable TOML: {error}") from None
    if unknown := sorted(content.keys() - set(KEYS)):
        raise DataError(f"{path} has the unknown key {unknown[0]!r}: known are {', '.join(KEYS)}")
    if lacking := [key for key in ("name", "classes") if key not in content]:
        raise DataError(
            f"{path} lacks {lacking[0]!r}: it needs at least a name and classes, such as "
            'name = "roads" and classes = ["background", "road"]'
        )
    try:
        classes = _classes(content["classes"])
        return DataSet(
            name=_name(content["name"]),
            root=path.parent,
            classes=classes,
            ignore=_ignore(content.get("ignore", IGNORE_LABEL), classes),
            colors=_colors(content["colors"], len(classes)) if "colors" in content else None,
            images=_folder(path, content, "images", "JPEGImages"),
            masks=_folder(path, content, "masks", "SegmentationClass"),
            splits=_folder(path, content, "splits", "ImageSets/Segmentation"),
            suffixes=_suffixes(content.get("suffixes", list(SUFFIXES))),
        )
    except _BadValueError as error:
        raise DataError(f"{path}: {error}") from None


class _BadValueError(ValueError):
    """What is wrong with a value, without the file's name."""


def _name(value: Any) -> str:
    if not _is_text(value):
        raise _BadValueError(f"name is {value!r}: it must be a text in quotes, of one line")
    if value in (VOC_NAME, SCENES_NAME):
        raise _BadValueError(f"name {value!r} is taken: choose another, reports compare by it")
    return str(value)


def _classes(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise _BadValueError(f"classes is {value!r}: it must be a list of names, by label")
    for label, name in enumerate(value):
        if not _is_text(name):
            raise _BadValueError(
                f"classes[{label}] is {name!r}: it must be a text in quotes, without commas, bars "
                "and line breaks, and without spaces at its ends"
            )
        if name in value[:label]:
            raise _BadValueError(
                f"classes names {name!r} twice: labels {value.index(name)}, {label}"
            )
    if not 2 <= len(value) <= MAX_CLASSES:
        raise _BadValueError(
            f"classes has {len(value)} names: 2 to {MAX_CLASSES} are possible, for masks of 8 bits"
        )
    return tuple(value)


def _ignore(value: Any, classes: tuple[str, ...]) -> int:
    if not _is_byte(value):
        raise _BadValueError(f"ignore is {value!r}: it must be a label from 0 to 255")
    if value < len(classes):
        raise _BadValueError(
            f"ignore is {value}, but that is the label of class {classes[value]!r}: choose one "
            f"from {len(classes)} to 255"
        )
    return int(value)


def _colors(value: Any, count: int) -> tuple[Color, ...]:
    if not isinstance(value, list) or len(value) != count:
        found = f"has {len(value)}" if isinstance(value, list) else f"is {value!r}"
        raise _BadValueError(f"colors {found}: it must list {count}, one for each class")
    for label, color in enumerate(value):
        if not isinstance(color, list) or len(color) != 3 or not all(map(_is_byte, color)):
            raise _BadValueError(
                f"colors[{label}] is {color!r}: it must be [red, green, blue], each 0 to 255"
            )
    return tuple((r, g, b) for r, g, b in value)


def _folder(path: Path, content: dict[str, Any], key: str, default: str) -> Path:
    value = content.get(key, default)
    if not isinstance(value, str) or not value:
        raise _BadValueError(f"{key} is {value!r}: it must be a folder, in quotes")
    return path.parent / value


def _suffixes(value: Any) -> tuple[str, ...]:
    names = value if isinstance(value, list) else []
    if not names or any(str(name).lower() not in SUFFIXES for name in names):
        raise _BadValueError(f"suffixes is {value!r}: it must list some of {', '.join(SUFFIXES)}")
    return tuple(dict.fromkeys(names))


def _is_text(value: Any) -> bool:
    """Say whether a value is a name that metadata and tables can hold."""
    return (
        isinstance(value, str)
        and value == value.strip()
        and value.isprintable()
        and bool(value)
        and not set(value) & set(RESERVED)
    )


def _is_byte(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255
