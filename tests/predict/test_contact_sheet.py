from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from deploy import models
from deploy.calibration import DataError
from deploy.calibration.preprocess import MEAN, STD, Fit, fit_image, fit_mask
from deploy.calibration.scenes import write_scenes
from deploy.calibration.voc import (
    PALETTE,
    Sample,
    describe_data_set,
    find_voc_root,
    read_sample,
    read_split,
)
from deploy.predict.contact_sheet import GAP, LINE, contact_sheet, draw_sheet

CELL, SIDE = 40, 32
VOC = describe_data_set(Path())  # a folder without a file of its own


class Brightness:
    """A network that calls the bright half of an image aeroplane and the rest background."""

    timed = None

    def __call__(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        assert image.shape == (1, 3, SIDE, SIDE)
        logits = np.zeros((21, SIDE, SIDE), dtype=np.float32)
        logits[1] = image[0, 0] * STD[0] + MEAN[0] - 0.5
        return logits


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    root = write_scenes(tmp_path_factory.mktemp("scenes") / "d", train=0, val=3, seed=1)
    return read_split(find_voc_root(root), "val")


def cell(sheet: Image.Image, column: int, row: int) -> NDArray[np.uint8]:
    """Return one of the sheet's pictures (H, W, 3)."""
    left, top = (GAP + place * (CELL + GAP) for place in (column, row))
    return np.asarray(sheet)[top : top + CELL, left : left + CELL]


def nearest(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    picture = Image.fromarray(PALETTE[labels])
    return np.asarray(picture.resize((CELL, CELL), Image.Resampling.NEAREST))


def test_sheet_holds_image_truth_and_prediction_of_each_scene(scenes: list[Sample]) -> None:
    sheet = draw_sheet(Brightness(), scenes, VOC, side=SIDE, cell=CELL)
    assert sheet.width == 6 * (CELL + GAP) + GAP  # two scenes in a row
    assert sheet.height >= 2 * (CELL + GAP) + GAP + LINE
    for number, sample in enumerate(scenes):
        pixels, mask = read_sample(sample)
        row, column = divmod(number, 2)
        image = fit_image(pixels, Fit.SQUASH, (SIDE, SIDE))
        shown = Image.fromarray(image).resize((CELL, CELL), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(cell(sheet, 3 * column, row), np.asarray(shown))
        truth = fit_mask(mask, Fit.SQUASH, (SIDE, SIDE))
        np.testing.assert_array_equal(cell(sheet, 3 * column + 1, row), nearest(truth))
        bright = (image[:, :, 0] > 127).astype(np.uint8)
        np.testing.assert_array_equal(cell(sheet, 3 * column + 2, row), nearest(bright))


def test_sheet_of_one_scene_names_its_classes_below(scenes: list[Sample]) -> None:
    sheet = draw_sheet(Brightness(), scenes[:1], VOC, side=SIDE, cell=CELL)
    assert sheet.width == 3 * (CELL + GAP) + GAP
    legend = np.asarray(sheet)[CELL + 2 * GAP :].reshape(-1, 3)
    colors = {tuple(color) for color in legend.tolist()}
    mask = fit_mask(read_sample(scenes[0])[1], Fit.SQUASH, (SIDE, SIDE))
    assert colors >= {tuple(PALETTE[label].tolist()) for label in [*np.unique(mask), 1]}
    name = np.asarray(sheet)[CELL + 2 * GAP :, GAP + LINE : GAP + LINE + 40]  # "background"
    assert (name[:LINE] < 100).any()


def test_command_writes_a_png(voc_root: Path, tmp_path: Path) -> None:
    module, _ = models.build_with_weights("rf-lw-mbv2")
    torch.save(module.state_dict(), tmp_path / "mine.pth")
    out = tmp_path / "new" / "sheet.png"
    contact_sheet(weights=tmp_path / "mine.pth", voc_root=voc_root, images=1, out=out)
    with Image.open(out) as sheet:
        assert sheet.format == "PNG"
        assert sheet.width == 3 * 204 + GAP
    with pytest.raises(DataError, match="no split 'test'"):
        contact_sheet(voc_root=voc_root, split="test", out=out)
