"""From statistics to the range that 8 bits will cover."""

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.calibration.errors import CalibrationError
from deploy.calibration.statistics import BINS, TensorStatistics

LEVELS = 256  # of an 8-bit integer


class Method(StrEnum):
    """How a range is chosen."""

    MINMAX = "minmax"  # every value seen is inside
    PERCENTILE = "percentile"  # all but the outermost values are
    ENTROPY = "entropy"  # the range whose quantized distribution is nearest in KL divergence
    MSE = "mse"  # the range with the least mean squared quantization error
    AUTO = "auto"  # for each tensor the one of the above with the least measured error


@dataclass(frozen=True, kw_only=True)
class RangeConfig:
    """How ranges are chosen."""

    method: Method = Method.MINMAX
    percentile: float = 99.99  # share of values within either bound, %; of Method.PERCENTILE

    def __post_init__(self) -> None:
        if self.method not in [*Method]:
            raise CalibrationError(f"no method {self.method!r}: choose one of {', '.join(Method)}")
        if not 50 < self.percentile <= 100:
            raise CalibrationError(
                f"percentile is {self.percentile}: it must be above 50 and at most 100"
            )


def choose_method(statistics: TensorStatistics, config: RangeConfig) -> Method:
    """Return the method of ``config``, or for ``auto`` the one with the least error on the samples.

    Of methods with equal errors it is the first in the order of :class:`Method`.
    """
    if config.method != Method.AUTO:
        return config.method
    methods = [method for method in Method if method != Method.AUTO]
    ranges = [choose_range(statistics, replace(config, method=method)) for method in methods]
    errors = [quantization_error(statistics, *bounds) for bounds in ranges]
    return methods[int(np.argmin(errors))]


def choose_range(statistics: TensorStatistics, config: RangeConfig) -> tuple[float, float]:
    """Return (low, high) with low <= 0 <= high, in the tensor's unit.

    Zero is always inside: zero padding must be represented exactly.
    """
    method = choose_method(statistics, config)
    if method == Method.PERCENTILE:
        low, high = _percentile(statistics, config.percentile)
    elif method == Method.ENTROPY:
        bound = _entropy_bound(statistics)
        low, high = -bound, bound
    elif method == Method.MSE:
        low, high = _mse_bounds(statistics)
    else:
        low, high = statistics.minimum, statistics.maximum
    low, high = max(low, statistics.minimum), min(high, statistics.maximum)
    return min(low, 0.0), max(high, 0.0)


def quantization_error(statistics: TensorStatistics, low: float, high: float) -> float:
    """Return the mean squared error of the samples in 8 bits of a range, in the unit's square.

    Each sample counts as the middle of its bin, but for the bin that begins at zero, which counts
    as zero: exact zeros, as a ReLU makes them, cost nothing.
    """
    used = np.flatnonzero(statistics.counts)
    if not used.size or high <= low:
        return 0.0
    values, counts = _middles(statistics)[used], statistics.counts[used]
    scale = (high - low) / (LEVELS - 1)
    zero_point = round(-low / scale)
    # x ≈ (q - zero_point) * scale
    q = (np.rint(values / scale) + zero_point).clip(0, LEVELS - 1)
    error = (q - zero_point) * scale - values
    return float((counts * error**2).sum() / counts.sum())


def _middles(statistics: TensorStatistics) -> NDArray[np.float64]:
    """Return the value that stands for each bin: its middle, and zero for the bin at zero."""
    middles: NDArray[np.float64] = (statistics.edges[:-1] + statistics.edges[1:]) / 2
    middles[BINS] = 0
    return middles


def _percentile(statistics: TensorStatistics, percentile: float) -> tuple[float, float]:
    """Return the values below and above which the rest of the samples lie, to one bin."""
    cumulative = np.cumsum(statistics.counts)
    total = int(cumulative[-1])
    outside = total * (1 - percentile / 100)
    low = int(np.searchsorted(cumulative, outside, side="right"))
    high = int(np.searchsorted(cumulative, total - outside, side="left"))
    edges = statistics.edges
    return float(edges[low]), float(edges[min(high, 2 * BINS - 1) + 1])


def _entropy_bound(statistics: TensorStatistics) -> float:
    """Return the magnitude at which clipping costs least KL divergence.

    Migacz, "8-bit Inference with TensorRT" (GTC 2017): for each candidate, the reference
    distribution is the histogram of magnitudes clipped there (what lies beyond is added to its last
    bin), and the other one is the same histogram, not clipped, merged into the quantizer's levels.
    """
    negative, positive = statistics.counts[:BINS][::-1], statistics.counts[BINS:]
    histogram = (negative + positive).astype(np.float64)
    histogram[0] = 0  # zeros are exact in any range and would drown the rest
    used = np.flatnonzero(histogram)
    signed = bool(negative.any())
    levels = LEVELS // 2 if signed else LEVELS
    if not used.size or used[-1] < levels:
        return math.inf
    last = int(used[-1]) + 1
    candidates = np.append(np.arange(levels, last, max(1, (last - levels) // 128)), last)
    best = int(candidates[np.argmin(_divergences(histogram, candidates, levels))])
    return math.inf if best == last else best * statistics.bin_width


def _divergences(
    histogram: NDArray[np.float64], candidates: NDArray[np.int64], levels: int
) -> NDArray[np.float64]:
    """Return the KL divergence of each candidate, in nats.

    A candidate is a number of bins, p the distribution clipped there and q the same bins merged
    into ``levels`` and spread evenly over those that are occupied. All sums are differences of
    cumulative ones: D = Σ p·ln p - Σ p·ln q.
    """
    last = candidates - 1
    starts = candidates[:, None] * np.arange(levels + 1) // levels  # of each level's bins
    mass = np.diff(_cumulative(histogram)[starts], axis=1)
    occupants = np.diff(_cumulative(histogram > 0)[starts], axis=1)
    inside, total = mass.sum(axis=1), histogram.sum()
    outside = total - inside
    q = mass / np.maximum(occupants, 1) / np.maximum(inside, 1)[:, None]
    # what is clipped on a bin that the quantizer leaves empty: a floor keeps the logarithm finite
    q_last = np.maximum(np.where(histogram[last] > 0, q[:, -1], 0), 1e-9)
    p_ln_p = (
        _cumulative(_x_ln_x(histogram))[last] + _x_ln_x(histogram[last] + outside)
    ) / total - np.log(total)
    p_ln_q = ((mass * np.log(np.where(q > 0, q, 1))).sum(axis=1) + outside * np.log(q_last)) / total
    return np.where(inside > 0, p_ln_p - p_ln_q, np.inf)


def _mse_bounds(statistics: TensorStatistics) -> tuple[float, float]:
    """Return the bounds with the least mean squared quantization error, each to about one bin.

    Nagel et al. 2021, "A White Paper on Neural Network Quantization" (arXiv 2106.08295), section
    3.1, with both bounds free: a value beyond them costs its distance squared, any other but zero
    scale² / 12, the variance of the rounding. The search goes over pairs of bounds an eighth of an
    octave apart, then ever closer about the best of them.
    """
    occupied = np.flatnonzero(statistics.counts) - BINS
    if not occupied.any():  # none, or only zeros
        return -math.inf, math.inf
    values = _middles(statistics) / statistics.bin_width
    counts = np.where(values == 0, 0, statistics.counts)
    moments = _cumulative(np.stack([counts, counts * values, counts * values**2]))
    fractions = np.append(2.0 ** -np.arange(0, 8, 1 / 8), 0)
    lows = np.unique(np.ceil(min(occupied[0], 0) * fractions))
    highs = np.unique(np.floor(max(occupied[-1] + 1, 0) * fractions))
    for _ in range(4):
        errors = _pair_errors(moments, lows, highs)
        low, high = np.unravel_index(np.argmin(errors), errors.shape)
        best = lows[low] * statistics.bin_width, highs[high] * statistics.bin_width
        lows, highs = _around(lows, int(low)), _around(highs, int(high))
    # the variance is a model: values that lie on a few levels may be better off in the whole range
    whole = statistics.minimum, statistics.maximum
    return min(whole, best, key=lambda bounds: quantization_error(statistics, *bounds))


def _around(bounds: NDArray[np.float64], index: int) -> NDArray[np.float64]:
    """Return whole numbers from the bound before ``index`` to the one after it, closer together."""
    first, last = bounds[max(index - 1, 0)], bounds[min(index + 1, bounds.size - 1)]
    return np.unique(np.rint(np.linspace(first, last, 17)))


def _pair_errors(
    moments: NDArray[np.float64], lows: NDArray[np.float64], highs: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the modelled squared error of each pair of bounds, (lows, highs), in bins squared.

    ``moments`` are the cumulative sums of n, n·v and n·v² over the bins; zeros count in none.
    """
    below = moments[:, lows.astype(int) + BINS]
    above = moments[:, -1:] - moments[:, highs.astype(int) + BINS]
    clipped_low = below[2] - 2 * lows * below[1] + lows**2 * below[0]  # Σ n·(v - low)²
    clipped_high = above[2] - 2 * highs * above[1] + highs**2 * above[0]
    scale = (highs - lows[:, None]) / (LEVELS - 1)
    inside = moments[0, -1] - above[0] - below[0][:, None]
    errors = clipped_low[:, None] + clipped_high + inside * scale**2 / 12
    return np.where(scale > 0, errors, np.inf)


def _cumulative(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return the sums of the first 0, 1, … of the values, along the last axis."""
    sums = np.cumsum(values, axis=-1, dtype=np.float64)
    return np.concatenate([np.zeros((*sums.shape[:-1], 1)), sums], axis=-1)


def _x_ln_x(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x * np.log(np.where(x > 0, x, 1))
