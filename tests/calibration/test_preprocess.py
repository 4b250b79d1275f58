import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from deploy.calibration import IGNORE_LABEL, PALETTE, Fit, logits_to_labels, preprocess
from deploy.calibration.preprocess import fit_image, fit_mask, fitted_region, normalize

SHAPES = [(375, 500), (500, 375), (333, 500), (281, 281), (37, 90), (640, 480)]  # height, width
SIZES = [(64, 64), (60, 96), (97, 65)]

each_fit = pytest.mark.parametrize("fit", list(Fit))


def gradient(height: int, width: int) -> NDArray[np.uint8]:
    """Return an image whose red is the column and whose green is the row, both from 0 to 255."""
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[:, :, 0] = np.round((np.arange(width) + 0.5) / width * 255)
    image[:, :, 1] = np.round((np.arange(height) + 0.5) / height * 255)[:, None]
    return image


@each_fit
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", SIZES)
def test_fit_returns_the_size_asked_for(
    fit: Fit, shape: tuple[int, int], size: tuple[int, int]
) -> None:
    image = fit_image(np.zeros((*shape, 3), dtype=np.uint8), fit, size)
    mask = fit_mask(np.zeros(shape, dtype=np.uint8), fit, size)
    assert image.shape == (*size, 3)
    assert mask.shape == size
    assert image.dtype == mask.dtype == np.uint8


def test_fit_has_the_three_documented_names() -> None:
    assert [fit.value for fit in Fit] == ["crop", "squash", "pad"]


@pytest.mark.parametrize(("shape", "axis"), [((100, 200), 0), ((200, 100), 1)])
def test_crop_keeps_the_centre_and_the_aspect_ratio(shape: tuple[int, int], axis: int) -> None:
    # 100x200 covers 50x50 at half the size: of the longer side, a quarter is lost at either end
    image = fit_image(gradient(*shape), Fit.CROP, (50, 50)).astype(int)
    longer = image[25, :, 0] if axis == 0 else image[:, 25, 1]
    shorter = image[:, 25, 1] if axis == 0 else image[25, :, 0]
    assert [longer[0], longer[-1]] == pytest.approx([64, 191], abs=3)
    assert [shorter[0], shorter[-1]] == pytest.approx([2, 253], abs=3)


@pytest.mark.parametrize("shape", [(100, 200), (200, 100)])
def test_squash_keeps_every_edge(shape: tuple[int, int]) -> None:
    image = fit_image(gradient(*shape), Fit.SQUASH, (50, 50)).astype(int)
    assert [image[25, 0, 0], image[25, -1, 0]] == pytest.approx([2, 253], abs=3)
    assert [image[0, 25, 1], image[-1, 25, 1]] == pytest.approx([2, 253], abs=3)


@pytest.mark.parametrize(
    ("shape", "region"), [((100, 200), (25, 50)), ((200, 100), (50, 25)), ((30, 30), (50, 50))]
)
def test_pad_fills_right_and_bottom_with_the_mean(
    shape: tuple[int, int], region: tuple[int, int]
) -> None:
    image = fit_image(np.full((*shape, 3), 7, dtype=np.uint8), Fit.PAD, (50, 50))
    mask = fit_mask(np.full(shape, 3, dtype=np.uint8), Fit.PAD, (50, 50))
    inside = np.zeros((50, 50), dtype=bool)
    inside[: region[0], : region[1]] = True
    assert (image[inside] == 7).all()
    assert (image[~inside] == (124, 116, 104)).all()  # 255 · ImageNet's mean
    assert (mask[inside] == 3).all()
    assert (mask[~inside] == IGNORE_LABEL).all()
    assert fitted_region(shape, Fit.PAD, (50, 50)) == region


def test_pad_is_near_zero_after_normalization() -> None:
    planes = preprocess(np.zeros((10, 40, 3), dtype=np.uint8), Fit.PAD, (40, 40))
    assert np.abs(planes[0, :, 10:, :]).max() < 0.5 / 255 / 0.224


@pytest.mark.parametrize("fit", [Fit.CROP, Fit.SQUASH])
@pytest.mark.parametrize("shape", SHAPES)
def test_fitted_region_is_the_whole_input(fit: Fit, shape: tuple[int, int]) -> None:
    assert fitted_region(shape, fit, (60, 96)) == (60, 96)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", SIZES)
def test_fitted_region_of_pad_is_what_has_labels(
    shape: tuple[int, int], size: tuple[int, int]
) -> None:
    mask = fit_mask(np.zeros(shape, dtype=np.uint8), Fit.PAD, size)
    rows, columns = np.nonzero(mask == 0)
    region = fitted_region(shape, Fit.PAD, size)
    assert region == (rows.max() + 1, columns.max() + 1)
    assert (mask == 0).sum() == region[0] * region[1]
    assert region[0] == size[0] or region[1] == size[1]


@each_fit
@pytest.mark.parametrize("size", [(48, 48), (64, 96), (160, 160)])
@pytest.mark.parametrize("shape", [(90, 120), (120, 90)])
def test_image_and_mask_stay_aligned(
    fit: Fit, size: tuple[int, int], shape: tuple[int, int]
) -> None:
    labels = np.zeros(shape, dtype=np.uint8)
    labels[25:70, 20:66] = 15
    labels[40:80, 50:85] = 8
    picture = fit_image(PALETTE[labels], fit, size).astype(int)
    mask = fit_mask(labels, fit, size)
    scored = mask != IGNORE_LABEL
    # the mask drawn in colours is the fitted picture, but for a blurred line along the borders
    apart = np.abs(picture - PALETTE[mask]).max(axis=2) > 64
    flat = np.ones(size, dtype=bool)
    for axis in (0, 1):
        for shift in (-1, 1):
            flat &= np.roll(mask, shift, axis) == mask
    assert (scored & flat).any()
    assert not (apart & scored & flat).any()


def test_fit_of_an_image_of_the_inputs_size_changes_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    for fit in Fit:
        assert np.array_equal(fit_image(image, fit, (20, 30)), image)
        assert np.array_equal(fit_mask(image[:, :, 0], fit, (20, 30)), image[:, :, 0])


def test_fit_mask_makes_no_new_labels() -> None:
    mask = np.random.default_rng(0).choice(np.array([0, 20, 255], np.uint8), (61, 83))
    for fit in Fit:
        assert set(np.unique(fit_mask(mask, fit, (40, 40))).tolist()) == {0, 20, 255}


def test_normalize_computes_imagenets_values_exactly() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image[0, 0], image[0, 1] = 0, 255
    planes = normalize(image)
    expected = (image.astype(np.float64) / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    assert planes.dtype == np.float32
    assert planes.shape == (1, 3, 5, 7)
    assert planes.flags.c_contiguous
    np.testing.assert_allclose(planes[0], expected.transpose(2, 0, 1), rtol=0, atol=1e-6)
    assert planes[0, 0, 0, 0] == pytest.approx(-0.485 / 0.229)  # black, red first
    assert planes[0, 2, 0, 1] == pytest.approx((1 - 0.406) / 0.225)  # white, blue last


@each_fit
def test_preprocess_normalizes_the_fitted_image(fit: Fit) -> None:
    image = np.random.default_rng(0).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    expected = normalize(fit_image(image, fit, (24, 32)))
    assert np.array_equal(preprocess(image, fit, (24, 32)), expected)


def brute_force_labels(logits: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize every plane, bilinear with half-pixel centres, then take the argmax."""
    planes = torch.from_numpy(logits)[None]
    resized = F.interpolate(planes, size=size, mode="bilinear", align_corners=False)
    return resized[0].numpy().argmax(axis=0).astype(np.uint8)


def smooth_logits(seed: int, height: int, width: int) -> NDArray[np.float32]:
    """Return logits of 21 classes with areas and borders, as a network's have."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, 21, 5, 6, generator=generator)
    fine = F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False)
    noise = 0.1 * torch.randn(fine.shape, generator=generator)
    planes: NDArray[np.float32] = (4 * fine + noise)[0].numpy()
    return planes


RESIZES = [
    ((125, 125), (500, 500)),
    ((32, 47), (128, 188)),
    ((32, 47), (125, 186)),
    ((20, 30), (333, 97)),
    ((40, 40), (40, 120)),
    ((64, 48), (32, 24)),
    ((60, 44), (17, 23)),
    ((1, 1), (8, 9)),
    ((3, 1), (7, 5)),
    ((16, 16), (1, 1)),
]


@pytest.mark.parametrize(("source", "target"), RESIZES)
def test_logits_to_labels_equals_resizing_every_plane(
    source: tuple[int, int], target: tuple[int, int]
) -> None:
    logits = smooth_logits(1, *source)
    before = logits.copy()
    labels = logits_to_labels(logits, target)
    assert labels.dtype == np.uint8
    assert labels.shape == target
    assert np.array_equal(labels, brute_force_labels(logits, target))
    assert np.array_equal(logits, before)


@pytest.mark.parametrize(
    ("source", "target"),
    [((32, 40), (128, 160)), ((32, 40), (64, 320)), ((32, 64), (16, 16)), ((9, 11), (36, 22))],
)
@pytest.mark.parametrize("levels", [2, 5])
def test_logits_to_labels_gives_ties_to_the_lowest_class(
    source: tuple[int, int], target: tuple[int, int], levels: int
) -> None:
    # ratios and values that are powers of two: the interpolation is exact, so ties are ties
    logits = np.random.default_rng(levels).integers(0, levels, (21, *source)).astype(np.float32) / 4
    ordered = np.sort(logits, axis=0)
    assert (ordered[-1] == ordered[-2]).mean() > 0.5
    assert np.array_equal(logits_to_labels(logits, target), brute_force_labels(logits, target))


@pytest.mark.parametrize(("source", "target"), [((33, 41), (100, 77)), ((125, 94), (375, 281))])
def test_logits_to_labels_of_quantized_logits_differs_at_ties_only(
    source: tuple[int, int], target: tuple[int, int]
) -> None:
    logits = np.round(smooth_logits(2, *source) / 0.25).astype(np.float32) * np.float32(0.25)
    planes = torch.from_numpy(logits).double()[None]
    resized = F.interpolate(planes, size=target, mode="bilinear", align_corners=False)[0].numpy()
    labels = logits_to_labels(logits, target)
    chosen = np.take_along_axis(resized, labels[None].astype(int), axis=0)[0]
    assert (resized.max(axis=0) - chosen).max() < 1e-5
    assert (labels == resized.argmax(axis=0)).mean() > 0.999


def test_logits_to_labels_at_the_logits_own_size_is_the_argmax() -> None:
    logits = smooth_logits(3, 12, 14)
    assert np.array_equal(logits_to_labels(logits, (12, 14)), logits.argmax(axis=0))


def test_logits_to_labels_of_a_part_is_that_part_of_the_whole() -> None:
    logits = np.random.default_rng(3).standard_normal((5, 8, 10)).astype(np.float32)
    whole = logits_to_labels(logits, (64, 40))
    part = logits_to_labels(logits, (32, 30), (0.5, 0.75))
    np.testing.assert_array_equal(part, whole[:32, :30])
    one_to_one = logits_to_labels(logits, (8, 10), (0.5, 0.5))
    np.testing.assert_array_equal(one_to_one, logits_to_labels(logits, (16, 20))[:8, :10])
