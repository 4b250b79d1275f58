"""Data that many tests share: a tiny VOC2012 folder, and the real one where there is one."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from roads import write_roads

from deploy import cli
from deploy.calibration.dataset import IGNORE_LABEL
from deploy.calibration.voc import CLASSES, PALETTE, find_voc_root

REPOSITORY = Path(__file__).parent.parent
SYNTHETIC_SPLITS = {"train": 6, "val": 4}  # names; the two share none
SIZES = ((36, 48), (48, 36), (40, 40))  # height, width, in turn: both orientations and a square


@pytest.fixture
def voc_root(tmp_path: Path) -> Path:
    """Return a synthetic VOC2012 folder: noise on three rectangles with a border of 255 each.

    ``train`` lists ``train_0`` … ``train_5`` and ``val`` lists ``val_0`` … ``val_3``.
    """
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    generator = np.random.default_rng(0)
    for split, count in SYNTHETIC_SPLITS.items():
        names = [f"{split}_{i}" for i in range(count)]
        list_path = root / "ImageSets" / "Segmentation" / f"{split}.txt"
        list_path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        for i, name in enumerate(names):
            mask = draw_mask(generator, SIZES[i % len(SIZES)])
            noise = generator.integers(-30, 31, (*mask.shape, 3))
            picture = (PALETTE[mask].astype(np.int64) + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(picture).save(root / "JPEGImages" / f"{name}.jpg", quality=90)
            save_mask(root / "SegmentationClass" / f"{name}.png", mask)
    return root


def draw_mask(generator: np.random.Generator, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return labels (H, W): background and three rectangles of any classes, bordered by 255."""
    mask = np.zeros(size, dtype=np.uint8)
    for _ in range(3):
        top, left = (int(generator.integers(0, length - 12)) for length in size)
        bottom, right = top + int(generator.integers(8, 24)), left + int(generator.integers(8, 24))
        mask[top:bottom, left:right] = IGNORE_LABEL
        mask[top + 1 : bottom - 1, left + 1 : right - 1] = generator.integers(1, len(CLASSES))
    return mask


def save_mask(path: Path, mask: NDArray[np.uint8]) -> None:
    """Write labels as VOC does: a PNG with its palette."""
    picture = Image.fromarray(mask, mode="L")
    picture.putpalette(PALETTE.tobytes())
    picture.save(path)


@pytest.fixture
def roads(tmp_path: Path) -> Path:
    """Return a data set of four classes with a file of its own (tests/roads.py)."""
    return write_roads(tmp_path / "roads")


@pytest.fixture
def reordered(tmp_path: Path) -> Path:
    """Return a data set with the same four names, two of them the other way round."""
    head = 'name = "other roads"\nclasses = ["ground", "car", "road", "sky"]\n'
    return write_roads(tmp_path / "reordered", head)


@pytest.fixture
def real_voc_root() -> Path:
    """Return the folder of real VOC2012 images; skips the test where there is none.

    It is ``$VOC_ROOT``, else ``../shared/voc`` beside the repository.
    """
    beside = REPOSITORY.parent / "shared" / "voc"
    if os.environ.get("VOC_ROOT"):
        return find_voc_root()  # what a user has set and does not exist is an error, not a skip
    if not beside.is_dir():
        pytest.skip("no real VOC images: set VOC_ROOT to a VOC2012 folder")
    return find_voc_root(beside)


@pytest.fixture(scope="session")
def bundled_artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return artifacts in which the default variant has the graphs of every toolchain."""
    import deploy
    from deploy import models
    from deploy.calibration.scenes import write_scenes
    from deploy.quantize.recipe import RecipeName

    folder = tmp_path_factory.mktemp("bundles")
    root, out = write_scenes(folder / "scenes", train=2, val=1, seed=1), folder / "artifacts"
    deploy.export(models.DEFAULT_VARIANT, out=out, input_size=(64, 96))
    deploy.quantize(
        [models.DEFAULT_VARIANT],
        target=[
            *("ort", "openvino", "tensorrt", "qnn", "ncnn", "litert", "ort-arm", "vacc"),
            *("sophgo", "rockchip", "k230"),
        ],
        recipe=RecipeName.PLAIN,
        images=2,
        voc_root=root,
        out=out,
    )
    return out


def run_main(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr of the console script."""
    monkeypatch.setattr(sys, "argv", ["deploy", *arguments])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    captured = capsys.readouterr()
    return int(exit_.value.code or 0), captured.out, captured.err
