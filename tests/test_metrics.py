import math

import numpy as np
import pytest

from deploy.metrics import ConfusionMatrix, Fidelity


def labels(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.uint8).reshape(1, -1)


def test_confusion_matrix_two_classes_by_hand() -> None:
    matrix = ConfusionMatrix(2)
    matrix.update(labels(0, 0, 0, 1, 1, 255), labels(0, 0, 1, 1, 0, 1))
    np.testing.assert_array_equal(matrix.counts, [[2, 1], [1, 1]])
    np.testing.assert_allclose(matrix.iou(), [2 / 4, 1 / 3])
    assert matrix.mean_iou() == pytest.approx((2 / 4 + 1 / 3) / 2)
    assert matrix.pixel_accuracy() == pytest.approx(3 / 5)


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
    assert fidelity.agreement == 1
