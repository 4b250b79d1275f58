import math

import numpy as np
import pytest
from numpy.typing import NDArray

from deploy.calibration import (
    CalibrationError,
    Method,
    RangeConfig,
    TensorStatistics,
    choose_method,
    choose_range,
)
from deploy.calibration.ranges import quantization_error
from deploy.calibration.statistics import BINS

each_method = pytest.mark.parametrize("method", list(Method))


def collect(values: NDArray[np.float64]) -> TensorStatistics:
    statistics = TensorStatistics()
    samples = values.astype(np.float32)
    statistics.update(float(samples.min()), float(samples.max()), samples)
    return statistics


def gaussian(count: int = 200_000) -> NDArray[np.float64]:
    return np.random.default_rng(0).normal(size=count)


def test_method_has_the_documented_names() -> None:
    names = [method.value for method in Method]
    assert names == ["minmax", "percentile", "entropy", "mse", "auto"]


def test_range_config_takes_minmax_by_default() -> None:
    assert RangeConfig() == RangeConfig(method=Method.MINMAX, percentile=99.99)


@pytest.mark.parametrize("percentile", [50, 0, -1, 100.01, math.nan, math.inf])
def test_range_config_refuses_a_percentile_outside_its_bounds(percentile: float) -> None:
    with pytest.raises(CalibrationError, match=r"percentile is .*: it must be above 50"):
        RangeConfig(method=Method.PERCENTILE, percentile=percentile)


def test_range_config_refuses_an_unknown_method() -> None:
    with pytest.raises(CalibrationError, match="no method 'median': choose one of minmax, percent"):
        RangeConfig(method="median")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([-1.5, 0.25, 3.75], (-1.5, 3.75)),
        ([0.5, 2.0], (0.0, 2.0)),
        ([-3.0, -0.5], (-3.0, 0.0)),
        ([0.0, 0.0], (0.0, 0.0)),
    ],
    ids=["both", "positive", "negative", "zero"],
)
def test_minmax_is_exact_and_holds_zero(values: list[float], expected: tuple[float, float]) -> None:
    assert choose_range(collect(np.array(values)), RangeConfig()) == expected


def test_minmax_takes_values_that_no_sample_has() -> None:
    statistics = TensorStatistics()
    statistics.update(-7.0, 9.0, np.float32([0.5, 1.5]))
    assert choose_range(statistics, RangeConfig()) == (-7.0, 9.0)


@pytest.mark.parametrize("percentile", [90, 99, 99.9, 99.99])
@pytest.mark.parametrize("shift", [0.0, 0.8, -0.8])
def test_percentile_equals_numpys_quantiles_within_a_bin(percentile: float, shift: float) -> None:
    values = gaussian(50_000) + shift
    statistics = collect(values)
    low, high = choose_range(
        statistics, RangeConfig(method=Method.PERCENTILE, percentile=percentile)
    )
    samples = values.astype(np.float32)
    expected_low = np.quantile(samples, 1 - percentile / 100, method="inverted_cdf")
    expected_high = np.quantile(samples, percentile / 100, method="inverted_cdf")
    assert low == pytest.approx(float(expected_low), abs=statistics.bin_width)
    assert high == pytest.approx(float(expected_high), abs=statistics.bin_width)


def test_percentile_of_100_is_minmax() -> None:
    statistics = collect(gaussian(1000))
    config = RangeConfig(method=Method.PERCENTILE, percentile=100)
    assert choose_range(statistics, config) == choose_range(statistics, RangeConfig())


def test_percentile_clips_an_outlier() -> None:
    statistics = collect(np.append(gaussian(), [500.0, -400.0]))
    low, high = choose_range(statistics, RangeConfig(method=Method.PERCENTILE))
    assert -5 < low < -3
    assert 3 < high < 5


def test_percentile_of_a_rectified_tensor_starts_at_zero() -> None:
    statistics = collect(np.maximum(gaussian(), 0))
    low, high = choose_range(statistics, RangeConfig(method=Method.PERCENTILE))
    assert low == 0
    assert 3 < high < statistics.maximum


@pytest.mark.parametrize("sign", [1, -1])
def test_entropy_clips_one_extreme_outlier_of_a_gaussian(sign: int) -> None:
    statistics = collect(np.append(gaussian(), sign * 50.0))
    low, high = choose_range(statistics, RangeConfig(method=Method.ENTROPY))
    assert 3 < -low < 7
    assert 3 < high < 7


def test_entropy_clips_one_extreme_outlier_of_a_rectified_gaussian() -> None:
    statistics = collect(np.append(np.maximum(gaussian(), 0), 50.0))
    low, high = choose_range(statistics, RangeConfig(method=Method.ENTROPY))
    assert low == 0
    assert 3 < high < 7


@pytest.mark.parametrize("bounds", [(-1, 1), (0, 1), (0, 6), (-3, 0)])
def test_entropy_keeps_a_uniform_distribution_whole(bounds: tuple[float, float]) -> None:
    statistics = collect(np.random.default_rng(0).uniform(*bounds, 200_000))
    config = RangeConfig(method=Method.ENTROPY)
    assert choose_range(statistics, config) == choose_range(statistics, RangeConfig())


def test_entropy_keeps_a_saturated_bound() -> None:
    statistics = collect(np.clip(3 * gaussian(), 0, 6))  # ReLU6: a lump at 6
    assert choose_range(statistics, RangeConfig(method=Method.ENTROPY)) == (0, 6)


def test_entropy_does_not_depend_on_how_many_zeros_there_are() -> None:
    values = np.append(np.abs(gaussian()) + 0.1, 50.0)  # zero is exact in any range
    config = RangeConfig(method=Method.ENTROPY)
    with_zeros = collect(np.append(values, np.zeros(5_000_000)))
    assert choose_range(with_zeros, config) == choose_range(collect(values), config)


def test_entropy_with_fewer_bins_than_levels_keeps_all() -> None:
    statistics = TensorStatistics()
    statistics.update(-8.0, 8.0, np.float32([0.01, -0.02, 0.03]))  # samples in three bins
    assert choose_range(statistics, RangeConfig(method=Method.ENTROPY)) == (-8.0, 8.0)


def fake_quantize(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    scale = (high - low) / 255
    zero_point = round(-low / scale)
    return (np.clip(np.rint(values / scale) + zero_point, 0, 255) - zero_point) * scale


OUTLIER_POSITIVE = np.append(np.maximum(gaussian(), 0), [9.0, 11.0])
LONG_TAILS = np.random.default_rng(3).standard_t(3, 200_000)
SKEWED = np.random.default_rng(4).gumbel(size=200_000) - 1


@pytest.mark.parametrize("values", [gaussian(), OUTLIER_POSITIVE, LONG_TAILS, SKEWED])
@pytest.mark.parametrize("share", [1.0, 0.5, 0.2])
def test_quantization_error_is_that_of_the_values(
    values: NDArray[np.float64], share: float
) -> None:
    statistics = collect(values)
    low, high = (share * v for v in choose_range(statistics, RangeConfig()))
    expected = np.mean((fake_quantize(values, low, high) - values) ** 2)
    assert quantization_error(statistics, low, high) == pytest.approx(expected, rel=0.02)


def test_quantization_error_of_zeros_and_of_an_empty_range_is_zero() -> None:
    assert quantization_error(collect(np.zeros(9)), 0.0, 6.0) == 0
    assert quantization_error(collect(np.zeros(9)), 0.0, 0.0) == 0


@pytest.mark.parametrize("values", [gaussian(), OUTLIER_POSITIVE, LONG_TAILS, SKEWED])
def test_mse_finds_the_least_error_of_all_pairs_of_bounds(values: NDArray[np.float64]) -> None:
    statistics = collect(values)
    found = choose_range(statistics, RangeConfig(method=Method.MSE))
    whole = choose_range(statistics, RangeConfig())
    shares = np.linspace(0.02, 1, 50)
    errors = [
        quantization_error(statistics, a * whole[0], b * whole[1]) for a in shares for b in shares
    ]
    assert quantization_error(statistics, *found) <= 1.01 * min(errors)
    assert quantization_error(statistics, *found) < quantization_error(statistics, *whole)


def test_mse_of_an_asymmetric_tensor_clips_each_bound_by_itself() -> None:
    statistics = collect(np.random.default_rng(5).laplace(size=200_000).clip(-1, None))
    low, high = choose_range(statistics, RangeConfig(method=Method.MSE))
    assert low == pytest.approx(-1, abs=0.05)
    # for both sides of a Laplace distribution it is 9.9: Banner et al. 2019, arXiv 1810.05723
    assert 7 < high < 0.95 * statistics.maximum


def test_mse_keeps_a_saturated_bound() -> None:
    statistics = collect(np.clip(3 * gaussian(), 0, 6))
    assert choose_range(statistics, RangeConfig(method=Method.MSE)) == (0, 6)


@pytest.mark.parametrize("values", [gaussian(), OUTLIER_POSITIVE, LONG_TAILS, SKEWED])
def test_auto_takes_the_method_with_the_least_error(values: NDArray[np.float64]) -> None:
    statistics = collect(values)
    ranges = {m: choose_range(statistics, RangeConfig(method=m)) for m in Method}
    errors = {m: quantization_error(statistics, *bounds) for m, bounds in ranges.items()}
    chosen = choose_method(statistics, RangeConfig(method=Method.AUTO))
    assert chosen != Method.AUTO
    assert errors[chosen] == min(errors.values()) == errors[Method.AUTO]
    assert ranges[Method.AUTO] == ranges[chosen]


def test_auto_of_equal_errors_is_minmax() -> None:
    statistics = collect(np.clip(3 * gaussian(), 0, 6))
    assert choose_method(statistics, RangeConfig(method=Method.AUTO)) == Method.MINMAX


@each_method
def test_choose_method_returns_what_is_asked_for(method: Method) -> None:
    chosen = choose_method(collect(gaussian(1000)), RangeConfig(method=method))
    assert chosen == method or method == Method.AUTO


def test_entropy_equals_its_definition_bin_by_bin() -> None:
    statistics = collect(np.append(gaussian(3000), 9.0))
    _, high = choose_range(statistics, RangeConfig(method=Method.ENTROPY))
    histogram = (statistics.counts[:BINS][::-1] + statistics.counts[BINS:]).astype(float)
    histogram[0] = 0
    last = int(np.flatnonzero(histogram)[-1]) + 1
    candidates = [*range(128, last, (last - 128) // 128), last]
    best = candidates[int(np.argmin([divergence(histogram, bins) for bins in candidates]))]
    assert high == best * statistics.bin_width


def divergence(histogram: NDArray[np.float64], bins: int) -> float:
    """Return the KL divergence as Migacz describes it, level by level."""
    reference = histogram[:bins].copy()
    reference[-1] += histogram[bins:].sum()
    q = np.zeros(bins)
    for level in range(128):
        part = slice(level * bins // 128, (level + 1) * bins // 128)
        occupied = histogram[part] > 0
        q[part] = occupied * histogram[part].sum() / max(occupied.sum(), 1)
    p, q = reference / reference.sum(), np.maximum(q / q.sum(), 1e-9)
    return float(sum(p[i] * np.log(p[i] / q[i]) for i in np.flatnonzero(p)))


@each_method
@pytest.mark.parametrize(
    "values",
    [
        gaussian(1000) + 100,
        gaussian(1000) - 100,
        gaussian(1000) * 1e-30,
        np.zeros(10),
        np.array([2.5]),
        np.array([-2.5, -2.5]),
    ],
    ids=["far_positive", "far_negative", "tiny", "zero", "constant", "negative_constant"],
)
def test_range_holds_zero_and_stays_inside_what_was_seen(
    method: Method, values: NDArray[np.float64]
) -> None:
    statistics = collect(values)
    low, high = choose_range(statistics, RangeConfig(method=method))
    assert min(statistics.minimum, 0) <= low <= 0 <= high <= max(statistics.maximum, 0)
    assert high - low > 0 or not values.any()


@each_method
def test_range_scales_with_the_tensor(method: Method) -> None:
    values = np.append(gaussian(20_000), [12.0, -9.0])
    config = RangeConfig(method=method, percentile=99.9)
    low, high = choose_range(collect(values), config)
    assert choose_range(collect(values * 1024), config) == (low * 1024, high * 1024)


@each_method
def test_range_does_not_change_the_statistics(method: Method) -> None:
    statistics = collect(gaussian(1000))
    before = statistics.counts.copy()
    choose_range(statistics, RangeConfig(method=method))
    assert np.array_equal(statistics.counts, before)
