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

from deploy.calibration.errors import CalibrationError
from deploy.calibration.preprocess import Float32Array

BINS = 4096  # on either side of zero; at least half of them lie within the largest magnitude
SMALLEST_EXPONENT = -126  # bins of 2^-126, for a tensor that is zero everywhere


@dataclass(kw_only=True)
class TensorStatistics:
    """Exact minimum and maximum of each channel, and a histogram of samples of all.

    ``channel_minimum`` and ``channel_maximum`` are float32 (C,), over all elements of all images;
    they are empty before the first one. Bin ``i`` of ``counts`` holds the samples v with
    ``floor(v / 2**exponent) == i - BINS``.
    """

    channel_minimum: Float32Array = field(default_factory=lambda: np.empty(0, dtype=np.float32))
    channel_maximum: Float32Array = field(default_factory=lambda: np.empty(0, dtype=np.float32))
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
            samples: some of the values, of any shape.

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
        self._extend(lows, highs)
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
        first = whole(content["first_bin"]) + BINS
        values = np.asarray([whole(count) for count in content["counts"]], np.int64)
        if (values < 0).any():
            raise ValueError("its counts are no list of whole numbers")
        if first < 0 or first + values.size > counts.size:
            raise ValueError("its histogram lies outside the bins")
        with np.errstate(over="ignore"):  # beyond float32 is infinite, which is refused below
            lows = np.asarray(content["channel_min"], np.float32)
            highs = np.asarray(content["channel_max"], np.float32)
        if lows.ndim != 1 or not lows.size or lows.shape != highs.shape:
            raise ValueError("its channels' ranges are no two lists of one length")
        if not (np.isfinite(lows) & (lows <= highs) & np.isfinite(highs)).all():
            raise ValueError("the range of a channel is not finite, or ends below its start")
        counts[first : first + values.size] = values
        exponent = whole(content["bin_exponent"])
        found = cls(
            channel_minimum=lows,
            channel_maximum=highs,
            exponent=exponent,
            counts=counts,
        )
        if exponent != _exponent_for(max(abs(found.minimum), abs(found.maximum))):
            raise ValueError(f"bins of 2^{exponent} do not suit its range")
        return found


def whole(value: Any) -> int:
    """Return a whole number as it stands in JSON; raises TypeError for anything else."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no whole number")
    return value


def _shortest(values: Float32Array) -> list[float]:
    """Return the numbers with the fewest decimals that are still these float32 values."""
    return [float(str(value)) for value in values]


def _exponent_for(magnitude: float) -> int:
    """Return the smallest exponent whose BINS bins reach beyond ``magnitude``."""
    if magnitude == 0:
        return SMALLEST_EXPONENT
    # frexp: magnitude = m · 2^e with m in [0.5, 1), so magnitude < 2^e = BINS · 2^(e - log2(BINS))
    return max(SMALLEST_EXPONENT, math.frexp(magnitude)[1] - BINS.bit_length() + 1)
