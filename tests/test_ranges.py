import math

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration import CalibrationError, Method, RangeConfig, TensorStatistics, choose_range

each_method = pytest.mark.parametrize("method", list(Method))


def collect(values: NDArray[np.float64]) -> TensorStatistics:
    statistics = TensorStatistics()
    samples = values.astype(np.float32)
    statistics.update(float(samples.min()), float(samples.max()), samples)
    return statistics


def gaussian(count: int = 200_000) -> NDArray[np.float64]:
    return np.random.default_rng(0).normal(size=count)


def test_method_has_the_three_documented_names() -> None:
    assert [method.value for method in Method] == ["minmax", "percentile", "entropy"]


def test_range_config_takes_minmax_by_default() -> None:
    assert RangeConfig() == RangeConfig(method=Method.MINMAX, percentile=99.99)


@pytest.mark.parametrize("percentile", [50, 0, -1, 100.01, math.nan, math.inf])
def test_range_config_refuses_a_percentile_outside_its_bounds(percentile: float) -> None:
    with pytest.raises(CalibrationError, match=r"percentile is .*: it must be above 50"):
        RangeConfig(method=Method.PERCENTILE, percentile=percentile)


def test_range_config_refuses_an_unknown_method() -> None:
    with pytest.raises(CalibrationError, match="no method 'mse': choose one of minmax, percentile"):
        RangeConfig(method="mse")  # type: ignore[arg-type]


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
