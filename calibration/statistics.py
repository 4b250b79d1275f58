"""What one pass over the images keeps of a tensor: exact ranges and a histogram of samples.

The histogram's bins are aligned at zero and a power of two wide, so widening them merges pairs of
bins and loses nothing: the result does not depend on the order of the images, nor on how they were
divided over several runs.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.errors import CalibrationError
from calibration.exact_sum import ExactSum
from calibration.preprocess import Float32Array

BINS = 4096  # on either side of zero; at least half of them lie within the largest magnitude
SMALLEST_EXPONENT = -126  # bins of 2^-126, for a tensor that is zero everywhere


@dataclass(kw_only=True)
class TensorStatistics:
    """Exact minimum and maximum of each channel; a histogram, and each channel's sum, of samples.

    ``channel_minimum`` and ``channel_maximum`` are float32 (C,), over all elements of all images;
    they are empty before the first one. ``channel_sum`` (C,) adds up the samples. Bin ``i`` of
    ``counts`` holds the samples v with ``floor(v / 2**exponent) == i - BINS``.
    """

    channel_minimum: Float32Array = field(default_factory=lambda: np.empty(0, dtype=np.float32))
    channel_maximum: Float32Array = field(default_factory=lambda: np.empty(0, dtype=np.float32))
    channel_sum: ExactSum = field(default_factory=ExactSum)
    exponent: int = SMALLEST_EXPONENT
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(2 * BINS, dtype=np.int64))

    @property
    def minimum(self) -> float:
        """The smallest value of all channels; infinite before the first image."""
        return float(self.channel_minimum.min(initial=np.inf))

    @property
    def maximum(self) -> float:
        """The largest value of all channels; negative infinite before the first image."""
        return float(self.channel_maximum.max(initial=-np.inf))

    @property
    def channel_mean(self) -> Float32Array:
        """Mean of each channel's samples, float32 (C,)."""
        samples = max(1, int(self.counts.sum()) // max(1, self.channel_sum.high.size))
        return ((self.channel_sum.high + self.channel_sum.low) / samples).astype(np.float32)

    @property
    def bin_width(self) -> float:
        """Width of a bin, in the tensor's unit."""
        return math.ldexp(1.0, self.exponent)

    @property
    def edges(self) -> NDArray[np.float64]:
        """The 2·BINS + 1 edges of the bins."""
        return np.arange(-BINS, BINS + 1, dtype=np.float64) * np.float64(self.bin_width)

    def update(self, minimum: ArrayLike, maximum: ArrayLike, samples: Float32Array) -> None:
        """Add one image's range and samples.

        Args:
            minimum: of each channel (C,); a number where the tensor counts as one channel.
            maximum: likewise.
            samples: some of the values, as many of each channel, (N, C, …); of any shape where
                there is one channel.

        Raises:
            CalibrationError: a value is NaN or infinite, or an earlier image had other channels.
        """
        lows, highs = (np.asarray(v, np.float32).reshape(-1) + 0 for v in (minimum, maximum))
        low, high = float(lows.min()), float(highs.max())  # + 0 has made -0.0 zero
        if not (math.isfinite(low) and math.isfinite(high)):
            raise CalibrationError(f"its range is {low} to {high}")
        if not (low <= float(samples.min()) and float(samples.max()) <= high):
            raise CalibrationError("it has NaN or infinite values")  # true for NaN samples too
        self._check_channels(lows.size)
        channels = samples.reshape(1 if lows.size == 1 else len(samples), lows.size, -1)
        sums = np.einsum("ncs->c", channels)  # float32, so that adding up the images is exact
        if not np.isfinite(sums).all():
            raise CalibrationError("its values are too large to be added up")
        self._extend(lows, highs)
        self.channel_sum.add(sums)
        self._widen(_exponent_for(max(abs(low), abs(high))))
        # a product with a power of two is exact
        bins = np.floor(samples.ravel() * np.float32(2.0**-self.exponent)).astype(np.int64)
        first = int(bins.min())
        counts = np.bincount(bins - first)
        self.counts[first + BINS : first + BINS + counts.size] += counts

    def merge(self, other: "TensorStatistics") -> None:
        """Add what another run saw: the result is that of one run over both sets of images.

        Raises:
            CalibrationError: the other has another number of channels.
        """
        if not other.channel_minimum.size:
            return
        self._check_channels(other.channel_minimum.size)
        self._extend(other.channel_minimum, other.channel_maximum)
        self.channel_sum.merge(other.channel_sum)
        self._widen(other.exponent)
        twin = TensorStatistics(exponent=other.exponent, counts=other.counts.copy())
        twin._widen(self.exponent)
        self.counts += twin.counts

    def _check_channels(self, channels: int) -> None:
        if self.channel_minimum.size not in (0, channels):
            raise CalibrationError(
                f"it has {channels} channels here and {self.channel_minimum.size} elsewhere"
            )

    def _extend(self, minimum: Float32Array, maximum: Float32Array) -> None:
        """Take the channels' ranges in."""
        if not self.channel_minimum.size:
            self.channel_minimum, self.channel_maximum = minimum.copy(), maximum.copy()
        self.channel_minimum = np.minimum(self.channel_minimum, minimum)
        self.channel_maximum = np.maximum(self.channel_maximum, maximum)

    def _widen(self, exponent: int) -> None:
        """Merge pairs of bins until they are at least 2**exponent wide."""
        while self.exponent < exponent:
            if not self.counts.any():
                self.exponent = exponent
                return
            half = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.pad(half, BINS // 2)
            self.exponent += 1

    def to_json(self) -> dict[str, Any]:
        """Return plain values; empty bins at both ends are left out."""
        used = np.flatnonzero(self.counts)
        first, last = (int(used[0]), int(used[-1]) + 1) if used.size else (BINS, BINS)
        return {
            "channel_min": _shortest(self.channel_minimum),
            "channel_max": _shortest(self.channel_maximum),
            "channel_sum": self.channel_sum.high.tolist(),
            "channel_sum_rest": self.channel_sum.low.tolist() if self.channel_sum.low.any() else [],
            "bin_exponent": self.exponent,
            "first_bin": first - BINS,
            "counts": self.counts[first:last].tolist(),
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "TensorStatistics":
        """Read what :meth:`to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError, OverflowError: it is something else.
        """
        counts = np.zeros(2 * BINS, dtype=np.int64)
        first, values = int(content["first_bin"]) + BINS, np.asarray(content["counts"], np.int64)
        if values.ndim != 1 or (values < 0).any():
            raise ValueError("its counts are no list of whole numbers")
        if first < 0 or first + values.size > counts.size:
            raise ValueError("its histogram lies outside the bins")
        lows, highs = (np.asarray(content[k], np.float32) for k in ("channel_min", "channel_max"))
        if lows.ndim != 1 or not lows.size or lows.shape != highs.shape:
            raise ValueError("its channels' ranges are no two lists of one length")
        if not (np.isfinite(lows) & (lows <= highs) & np.isfinite(highs)).all():
            raise ValueError("the range of a channel is not finite, or ends below its start")
        high = np.asarray(content["channel_sum"], np.float64)
        low = np.asarray(content["channel_sum_rest"] or np.zeros(lows.shape), np.float64)
        if not high.shape == low.shape == lows.shape or not np.isfinite(high + low).all():
            raise ValueError("its channels' sums are no list of finite numbers, one a channel")
        counts[first : first + values.size] = values
        exponent = int(content["bin_exponent"])
        found = cls(
            channel_minimum=lows,
            channel_maximum=highs,
            channel_sum=ExactSum(high=high, low=low),
            exponent=exponent,
            counts=counts,
        )
        if exponent != _exponent_for(max(abs(found.minimum), abs(found.maximum))):
            raise ValueError(f"bins of 2^{exponent} do not suit its range")
        return found


def _shortest(values: Float32Array) -> list[float]:
    """Return the numbers with the fewest decimals that are still these float32 values."""
    return [float(str(value)) for value in values]


def _exponent_for(magnitude: float) -> int:
    """Return the smallest exponent whose BINS bins reach beyond ``magnitude``."""
    if magnitude == 0:
        return SMALLEST_EXPONENT
    # frexp: magnitude = m · 2^e with m in [0.5, 1), so magnitude < 2^e = BINS · 2^(e - log2(BINS))
    return max(SMALLEST_EXPONENT, math.frexp(magnitude)[1] - BINS.bit_length() + 1)
