import io

import numpy as np
import pytest
from PIL import Image

from deploy.calibration import PALETTE
from deploy.predict.overlay import SMALLEST_TEXT, draw_overlay, encode_mask


@pytest.mark.parametrize("size", [(1, 1), (30, 40), (500, 375), (1500, 2000)])
def test_legend_is_below_the_image_and_names_the_classes_given_alone(
    size: tuple[int, int],
) -> None:
    image = np.full((*size, 3), 200, dtype=np.uint8)
    labels = np.full(size, 8, dtype=np.uint8)
    picture = draw_overlay(image, labels, {8: "cat 100.0%"})
    pixels = np.asarray(picture)
    mixed = np.broadcast_to((200.0 + PALETTE[8]) / 2, (*size, 3))
    np.testing.assert_allclose(pixels[: size[0], : size[1]], mixed, atol=1)
    below = pixels[size[0] :]
    colors = {tuple(color) for color in below.reshape(-1, 3).tolist()}
    assert tuple(PALETTE[8].tolist()) in colors
    assert not colors & {
        tuple(PALETTE[i].tolist()) for i in range(1, 21) if i not in (7, 8)
    }  # 7: grey, as text is
    swatch = (below == PALETTE[8]).all(axis=2)
    height = np.flatnonzero(swatch.any(axis=1)).size + 2  # with its outline
    assert height == max(SMALLEST_TEXT, round(max(size) / 40))
    assert (below[:, -1] == 255).all()  # no text is cut off at the right


def test_legend_takes_as_many_lines_as_it_needs() -> None:
    image = np.zeros((100, 200, 3), dtype=np.uint8)
    labels = np.zeros((100, 200), dtype=np.uint8)
    heights = [
        draw_overlay(image, labels, {i: f"class {i}" for i in range(count)}).height
        for count in (1, 2, 3, 21)
    ]
    assert heights[0] == heights[1] < heights[2] < heights[3]


def test_classes_are_parted_by_a_white_line() -> None:
    labels = np.zeros((10, 10), dtype=np.uint8)
    labels[:, 5:] = 1
    pixels = np.asarray(draw_overlay(np.zeros((10, 10, 3), np.uint8), labels, {0: "a"}))
    assert (pixels[:10, 4] == 255).all()
    np.testing.assert_allclose(pixels[:10, 5], np.tile(PALETTE[1] / 2, (10, 1)), atol=1)


def test_mask_holds_every_label_with_vocs_palette() -> None:
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    with Image.open(io.BytesIO(encode_mask(labels))) as mask:
        assert mask.mode == "P"
        np.testing.assert_array_equal(np.asarray(mask), labels)
        np.testing.assert_array_equal(np.asarray(mask.convert("RGB")), PALETTE[labels])
