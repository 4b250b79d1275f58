"""The data set that the repository makes: drawn scenes of VOC's 20 classes, in VOC2012's layout.

Every scene depends on the seed, its split and its number alone: a bigger data set of one seed
begins with the smaller one, byte for byte (with one version of Pillow).
"""

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from deploy.calibration.errors import DataError
from deploy.calibration.processes import is_running
from deploy.calibration.scenes.compose import compose, encode_jpeg
from deploy.calibration.voc import PALETTE, UInt8Array

GENERATOR = 3  # goes up with every change of what is drawn
SETTINGS_FILE = "scenes.json"
LAYOUT = Path("VOCdevkit") / "VOC2012"
SPLITS = ("train", "val")

Progress = Callable[[int, int], None]  # scenes written, scenes in all


def write_scenes(
    directory: Path, *, train: int, val: int, seed: int, progress: Progress | None = None
) -> Path:
    """Write a data set of ``train`` + ``val`` scenes into ``directory``, whole or not at all.

    A data set of the same settings that is already there is kept as it is.

    Returns:
        The VOC2012 folder, fit for ``deploy.calibration.voc.read_split``.

    Raises:
        DataError: a count or the seed is negative, both counts are 0, something else is at
            ``directory``, or it cannot be written.
    """
    if min(train, val, seed) < 0 or train + val == 0:
        raise DataError(
            f"scenes: train={train}, val={val}, seed={seed}: none may be negative, and train or "
            "val must be at least 1"
        )
    settings = {"generator": GENERATOR, "train": train, "val": val, "seed": seed}
    root = directory / LAYOUT
    if _is_written(directory, settings):
        return root
    # beside the destination, hence on its file system: the rename at the end is atomic
    partial = directory.absolute().with_name(f".{directory.absolute().name}.partial-{os.getpid()}")
    _remove_stale(partial)
    try:
        _write_all(partial / LAYOUT, settings, progress)
        (partial / SETTINGS_FILE).write_text(json.dumps(settings) + "\n", encoding="utf-8")
        if directory.is_dir():
            directory.rmdir()  # empty: _is_written has looked
        partial.rename(directory)
    except OSError as error:
        if _is_written(directory, settings):
            return root  # another process was quicker
        raise DataError(
            f"{directory} cannot be written ({error.strerror or error}): choose a folder that you "
            "may write to, on a disk with room (about 60 KB a scene)"
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return root


def _remove_stale(partial: Path) -> None:
    """Remove what stands at ``partial``, and what killed processes left beside it."""
    prefix = partial.name.removesuffix(str(os.getpid()))
    beside = partial.parent.iterdir() if partial.parent.is_dir() else ()
    for path in [path for path in beside if path.name.startswith(prefix)]:
        number = path.name.removeprefix(prefix)
        if number.isdigit() and not is_running(int(number)):
            shutil.rmtree(path, ignore_errors=True)


def draw_scene(*, seed: int, split: str, index: int) -> tuple[bytes, bytes]:
    """Return scene ``index`` of ``split`` as a JPEG file's bytes and its palette PNG mask's."""
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    image, mask = compose(rng)
    return encode_jpeg(rng, image), _encode_mask(mask)


def scene_name(*, seed: int, split: str, index: int) -> str:
    """Return the name under which a scene stands in the lists; it differs by seed and split."""
    return f"scene_{seed}_{split}_{index:06d}"


def _is_written(directory: Path, settings: dict[str, int]) -> bool:
    """Return whether this very data set is at ``directory``; raise for anything else there."""
    if not directory.exists():
        return False
    if not directory.is_dir():
        raise DataError(f"{directory} is a file: pass a folder that is new or empty")
    path = directory / SETTINGS_FILE
    if not path.is_file():
        if any(directory.iterdir()):
            raise DataError(
                f"{directory} is not empty and holds no {SETTINGS_FILE}: pass a folder that is new "
                "or empty"
            )
        return False
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): remove {directory}") from None
    if found != settings:
        raise DataError(
            f"{directory} holds scenes of other settings ({_line(found)}; asked for "
            f"{_line(settings)}): remove it or pass another folder"
        )
    return True


def _line(settings: object) -> str:
    if not isinstance(settings, dict):
        return "unreadable"
    return ", ".join(f"{key} {value}" for key, value in settings.items())


def _write_all(root: Path, settings: dict[str, int], progress: Progress | None) -> None:
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    total, done, seed = settings["train"] + settings["val"], 0, settings["seed"]
    for split in SPLITS:
        names = [scene_name(seed=seed, split=split, index=i) for i in range(settings[split])]
        for i, name in enumerate(names):
            image, mask = draw_scene(seed=seed, split=split, index=i)
            (root / "JPEGImages" / f"{name}.jpg").write_bytes(image)
            (root / "SegmentationClass" / f"{name}.png").write_bytes(mask)
            done += 1
            if progress is not None:
                progress(done, total)
        text = "".join(f"{name}\n" for name in names)
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(text, encoding="utf-8")


def _encode_mask(mask: UInt8Array) -> bytes:
    picture = Image.fromarray(mask)
    picture.putpalette(PALETTE.tobytes())  # mode L becomes P, the values stay
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
