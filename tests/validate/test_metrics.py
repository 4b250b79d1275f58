import math

import numpy as np
import pytest

from deploy.validate.metrics import (
    ConfusionMatrix,
    Fidelity,
    MeanIouCost,
    marginals,
    paired_bootstrap,
)


def labels(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.uint8).reshape(1, -1)


def test_confusion_matrix_two_classes_by_hand() -> None:
    matrix = ConfusionMatrix(2)
    matrix.update(labels(0, 0, 0, 1, 1, 255), labels(0, 0, 1, 1, 0, 1))
    np.testing.assert_array_equal(matrix.counts, [[2, 1], [1, 1]])
    np.testing.assert_allclose(matrix.iou(), [2 / 4, 1 / 3])
    assert matrix.mean_iou() == pytest.approx((2 / 4 + 1 / 3) / 2)
    assert matrix.pixel_accuracy() == pytest.approx(3 / 5)


def test_confusion_matrix_update_returns_the_pixels_of_that_image_alone() -> None:
    matrix = ConfusionMatrix(2)
    matrix.update(labels(0, 0), labels(0, 1))
    pixels = matrix.update(labels(1, 1, 255), labels(1, 0, 1))
    np.testing.assert_array_equal(pixels, [[0, 1], [0, 2], [1, 1]])  # correct, true, predicted
    assert pixels.base is None or pixels.base.size == pixels.size  # it keeps nothing larger alive
    np.testing.assert_array_equal(matrix.counts, [[1, 1], [1, 1]])


def test_confusion_matrix_accumulates_over_images() -> None:
    r = np.random.default_rng(0)
    truth = r.integers(0, 21, (4, 10, 12)).astype(np.uint8)
    predicted = r.integers(0, 21, (4, 10, 12)).astype(np.uint8)
    truth[:, :2] = 255
    one_by_one, at_once = ConfusionMatrix(21), ConfusionMatrix(21)
    for t, p in zip(truth, predicted, strict=True):
        one_by_one.update(t, p)
    at_once.update(truth, predicted)
    np.testing.assert_array_equal(one_by_one.counts, at_once.counts)
    expected = np.zeros((21, 21), dtype=np.int64)
    for t, p in zip(truth.ravel(), predicted.ravel(), strict=True):
        if t != 255:
            expected[t, p] += 1
    np.testing.assert_array_equal(at_once.counts, expected)


def test_mean_iou_averages_over_classes_of_the_truth_only() -> None:
    matrix = ConfusionMatrix(4)
    matrix.update(labels(0, 0, 0, 1), labels(0, 0, 2, 1))  # 2 is predicted, never true
    assert matrix.mean_iou() == pytest.approx((2 / 3 + 1) / 2)
    assert np.isnan(matrix.iou()[2:]).all()


def test_metrics_without_a_valid_pixel_are_nan() -> None:
    matrix = ConfusionMatrix(2)
    matrix.update(labels(255, 255), labels(0, 1))
    assert math.isnan(matrix.mean_iou())
    assert math.isnan(matrix.pixel_accuracy())


def test_sqnr_of_a_known_noise_is_its_ratio_in_decibels() -> None:
    reference = np.full((2, 4, 4), 10, dtype=np.float32)
    fidelity = Fidelity()
    fidelity.update(reference, reference + 1, labels(0, 1), labels(0, 0))
    assert fidelity.sqnr_db == pytest.approx(20)  # 10·log10(100 / 1)
    assert fidelity.agreement == 0.5


def test_sqnr_of_equal_logits_is_infinite() -> None:
    reference = np.ones((2, 2, 2), dtype=np.float32)
    fidelity = Fidelity()
    fidelity.update(reference, reference, labels(0), labels(0))
    assert fidelity.sqnr_db == math.inf
    assert fidelity.agreement == 1


def test_sqnr_of_logits_of_another_shape_is_nan_and_labels_still_compare() -> None:
    fidelity = Fidelity()
    fidelity.update(
        np.ones((2, 2, 2), np.float32), np.ones((2, 4, 4), np.float32), *[labels(1)] * 2
    )
    assert math.isnan(fidelity.sqnr_db)
    assert math.isnan(fidelity.cosine)
    assert fidelity.agreement == 1


def test_cosine_of_a_known_angle_over_two_images() -> None:
    fidelity = Fidelity()
    reference = np.array([3, 0], np.float32).reshape(2, 1, 1)
    fidelity.update(reference, np.array([3, 1], np.float32).reshape(2, 1, 1), *[labels(0)] * 2)
    fidelity.update(reference, np.array([1, -2], np.float32).reshape(2, 1, 1), *[labels(0)] * 2)
    # all logits are one vector: (3, 0, 3, 0) · (3, 1, 1, -2) = 12, lengths √18 and √15
    assert fidelity.cosine == pytest.approx(12 / math.sqrt(18 * 15))


@pytest.mark.parametrize(("factor", "cosine"), [(1, 1), (3, 1), (-0.7, -1)])
def test_cosine_of_a_multiple_is_one_or_minus_one(factor: float, cosine: float) -> None:
    reference = np.random.default_rng(0).normal(size=(21, 9, 9)).astype(np.float32)
    fidelity = Fidelity()
    other = np.float32(factor) * reference
    fidelity.update(reference, other, labels(0), labels(0))
    assert fidelity.cosine == pytest.approx(cosine, abs=1e-6)
    assert abs(fidelity.cosine) <= 1


def test_cosine_of_logits_that_are_all_zero_is_nan() -> None:
    fidelity = Fidelity()
    zeros = np.zeros((2, 2, 2), np.float32)
    fidelity.update(zeros + 1, zeros, labels(0), labels(0))
    assert math.isnan(fidelity.cosine)


def one_class_images(errors: list[float], pixels: int = 1000) -> list[np.ndarray]:
    """Return counts of images of class 0, a share of whose pixels are predicted as class 1."""
    wrong = [round(pixels * error) for error in errors]
    return [np.array([[pixels - w, w], [0, 0]]) for w in wrong]


def random_images(count: int, seed: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 50, (21, 21)) for _ in range(count)]


def bootstrap(baseline: list[np.ndarray], network: list[np.ndarray], seed: int = 0) -> MeanIouCost:
    """Return the cost of networks whose counts (C, C) on each image are given."""
    sides = ([marginals(counts) for counts in images] for images in (baseline, network))
    return paired_bootstrap(*sides, seed=seed)


def test_paired_bootstrap_of_identical_networks_has_zero_width() -> None:
    images = random_images(40, seed=0)
    cost = bootstrap(images, [image.copy() for image in images])
    assert (cost.drop.low, cost.drop.value, cost.drop.high) == (0, 0, 0)
    assert (cost.ratio.low, cost.ratio.value, cost.ratio.high) == (1, 1, 1)


def test_paired_bootstrap_figures_are_those_of_the_whole_set() -> None:
    first, second = random_images(12, seed=1), random_images(12, seed=2)
    matrices = [ConfusionMatrix(21), ConfusionMatrix(21)]
    for matrix, images in zip(matrices, (first, second), strict=True):
        matrix.counts = np.sum(images, axis=0)
    miou = [matrix.mean_iou() for matrix in matrices]
    cost = bootstrap(first, second)
    assert cost.drop.value == pytest.approx(miou[0] - miou[1], abs=1e-15)
    assert cost.ratio.value == pytest.approx(miou[1] / miou[0])


def test_paired_bootstrap_of_a_network_worse_on_every_image_excludes_zero() -> None:
    spread = np.random.default_rng(0).uniform(0, 0.9, 50)  # far wider than the difference
    baseline, network = one_class_images(list(spread)), one_class_images(list(spread + 0.01))
    cost = bootstrap(baseline, network)
    assert cost.drop.value == pytest.approx(0.01)
    assert 0.009 < cost.drop.low <= cost.drop.high < 0.011  # the pairing cancels the spread
    assert cost.ratio.high < 1
    opposite = bootstrap(network, baseline)
    assert opposite.drop.high < 0


def test_paired_bootstrap_interval_of_a_mean_is_the_textbook_one() -> None:
    errors = np.random.default_rng(3).uniform(0, 0.2, 200)
    cost = bootstrap(one_class_images([0.0] * 200), one_class_images(list(errors)))
    half = 1.96 * errors.std() / math.sqrt(200)  # of one class in equal images, mIoU is a mean
    assert cost.drop.value == pytest.approx(errors.mean(), abs=1e-3)
    assert cost.drop.high - cost.drop.value == pytest.approx(half, rel=0.15)
    assert cost.drop.value - cost.drop.low == pytest.approx(half, rel=0.15)


def test_paired_bootstrap_averages_over_the_classes_of_each_resample() -> None:
    # one image of class 0, one of class 1; the network gives half of the first to class 2
    baseline = [np.diag([4, 0, 0]), np.diag([0, 4, 0])]
    network = [np.array([[2, 0, 2], [0, 0, 0], [0, 0, 0]]), baseline[1]]
    cost = bootstrap(baseline, network)
    # the resamples: the first twice, mIoU 1/2; each once, (1/2 + 1) / 2; the second twice, 1
    assert (cost.drop.low, cost.drop.value, cost.drop.high) == (0, 0.25, 0.5)
    assert (cost.ratio.low, cost.ratio.value, cost.ratio.high) == (0.5, 0.75, 1)


def test_paired_bootstrap_of_one_image_has_no_interval() -> None:
    cost = bootstrap(one_class_images([0.1]), one_class_images([0.2]))
    assert cost.drop.value == pytest.approx(0.1)
    assert math.isnan(cost.drop.low)
    assert math.isnan(cost.ratio.high)


def test_paired_bootstrap_leaves_resamples_without_a_pixel_out() -> None:
    empty = np.zeros((2, 2), dtype=np.int64)
    cost = bootstrap([*one_class_images([0.0]), empty], [*one_class_images([0.5]), empty])
    assert (cost.drop.low, cost.drop.value, cost.drop.high) == (0.5, 0.5, 0.5)
    nothing = bootstrap([empty, empty], [empty, empty])
    assert math.isnan(nothing.drop.value)
    assert math.isnan(nothing.drop.low)


def test_paired_bootstrap_ratio_to_a_baseline_without_a_right_pixel_is_nan() -> None:
    cost = bootstrap(one_class_images([1.0, 1.0]), one_class_images([0.5, 0.5]))
    assert cost.drop.value == -0.5
    assert math.isnan(cost.ratio.value)
    assert math.isnan(cost.ratio.low)


def test_paired_bootstrap_is_seeded() -> None:
    first, second = random_images(9, seed=1), random_images(9, seed=2)
    assert bootstrap(first, second) == bootstrap(first, second)
    assert bootstrap(first, second) != bootstrap(first, second, seed=1)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (3, 2)])
def test_paired_bootstrap_of_what_is_no_pair_is_refused(first: int, second: int) -> None:
    with pytest.raises(ValueError, match=f"{first} and {second} images cannot be paired"):
        paired_bootstrap(random_images(first, seed=0), random_images(second, seed=0))
