"""From statistics to the range that 8 bits will cover."""

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from calibration.errors import CalibrationError
from calibration.statistics import BINS, TensorStatistics

LEVELS = 256  # of an 8-bit integer


class Method(StrEnum):
    """How a range is chosen."""

    MINMAX = "minmax"  # every value seen is inside
    PERCENTILE = "percentile"  # all but the outermost values are
    ENTROPY = "entropy"  # the range whose quantized distribution is nearest in KL divergence


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


def choose_range(statistics: TensorStatistics, config: RangeConfig) -> tuple[float, float]:
    """Return (low, high) with low <= 0 <= high, in the tensor's unit.

    Zero is always inside: zero padding must be represented exactly.
    """
    if config.method == Method.PERCENTILE:
        low, high = _percentile(statistics, config.percentile)
    elif config.method == Method.ENTROPY:
        bound = _entropy_bound(statistics)
        low, high = -bound, bound
    else:
        low, high = statistics.minimum, statistics.maximum
    low, high = max(low, statistics.minimum), min(high, statistics.maximum)
    return min(low, 0.0), max(high, 0.0)


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
    candidates = range(levels, last + 1, max(1, (last - levels) // 128))
    divergences = [_divergence(histogram, bins, levels) for bins in [*candidates, last]]
    best = [*candidates, last][int(np.argmin(divergences))]
    return math.inf if best == last else best * statistics.bin_width


def _divergence(histogram: NDArray[np.float64], bins: int, levels: int) -> float:
    """Return the KL divergence of the first ``bins`` of ``histogram`` from ``levels`` of them."""
    inside = histogram[:bins]
    reference = inside.copy()
    reference[-1] += histogram[bins:].sum()
    starts = np.arange(levels) * bins // levels
    widths = np.diff(np.append(starts, bins))
    occupied = inside > 0
    mass = np.add.reduceat(inside, starts)
    occupants = np.maximum(np.add.reduceat(occupied.astype(np.float64), starts), 1)
    quantized = np.where(occupied, np.repeat(mass / occupants, widths), 0.0)
    if not quantized.any():
        return math.inf
    p, q = reference / reference.sum(), quantized / quantized.sum()
    support = p > 0
    # a clipped mass on a bin that the quantizer leaves empty: a small floor keeps the log finite
    return float(np.sum(p[support] * np.log(p[support] / np.maximum(q[support], 1e-9))))
