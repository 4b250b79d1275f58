"""Which images a user means, and what their results are called."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from deploy.calibration import DataError
from deploy.errors import DeployError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


def find_images(arguments: Sequence[str]) -> list[Path]:
    """Return the images that files, folders and patterns name, each once, in the order given.

    Of a folder it is the images directly in it, by their suffix. A pattern is one that no shell
    has replaced, such as "photos/**/*.jpg" in quotes; ``**`` goes through all folders below.

    Raises:
        DataError: one of them names no image.
    """
    found: dict[str, Path] = {}
    for argument in arguments:
        for path in _find(argument):
            found.setdefault(os.path.abspath(path), path)
    return list(found.values())


def _find(argument: str) -> list[Path]:
    path = Path(argument)
    if path.is_file():
        return [path]
    if path.is_dir():
        images = [p for p in sorted(path.iterdir()) if _is_image(p)]
        if not images:
            raise DataError(f"no images in {path} ({', '.join(SUFFIXES)}): name another folder")
        return images
    if not glob.has_magic(argument):
        raise DataError(f"no image at {path}: pass a file, a folder, or a pattern in quotes")
    matches = [Path(name) for name in sorted(glob.glob(argument, recursive=True))]
    if not (files := [match for match in matches if match.is_file()]):
        raise DataError(f"no image matches {argument!r}")
    return files


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def name_results(images: Sequence[Path], out: Path) -> list[Path]:
    """Return a path below ``out`` for each image, without suffix, no two alike.

    Images of several folders keep their folders, from the first that they do not share. Names keep
    their suffix where two differ in it alone.

    Raises:
        DeployError: results would lie among the images.
    """
    # not resolve(): an image keeps the name that it is known by, also where that is a link
    places = [Path(os.path.abspath(image)) for image in images]
    if out.resolve() in {place.parent.resolve() for place in places}:
        raise DeployError(f"{out} holds the images: choose another folder for results with --out")
    base = os.path.commonpath([place.parent for place in places])
    relative = [place.relative_to(base) for place in places]
    names = [path.with_suffix("") for path in relative]
    return [out / name for name in (relative if len(set(names)) < len(names) else names)]
