"""What one pass over the images keeps of a tensor: its exact range and a histogram of samples.

The histogram's bins are aligned at zero and a power of two wide, so widening them merges pairs of
bins and loses nothing: the result does not depend on the order of the images, nor on how they were
divided over several runs.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.errors import CalibrationError

BINS = 4096  # on either side of zero; at least half of them lie within the largest magnitude
SMALLEST_EXPONENT = -126  # bins of 2^-126, for a tensor that is zero everywhere


@dataclass(kw_only=True)
class TensorStatistics:
    """Exact minimum and maximum over all elements, and a histogram of some of them.

    Bin ``i`` of ``counts`` holds the values v with ``floor(v / 2**exponent) == i - BINS``.
    """

    minimum: float = math.inf
    maximum: float = -math.inf
    exponent: int = SMALLEST_EXPONENT
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(2 * BINS, dtype=np.int64))

    @property
    def bin_width(self) -> float:
        """Width of a bin, in the tensor's unit."""
        return math.ldexp(1.0, self.exponent)

    @property
    def edges(self) -> NDArray[np.float64]:
        """The 2·BINS + 1 edges of the bins."""
        return np.arange(-BINS, BINS + 1, dtype=np.float64) * np.float64(self.bin_width)

    def update(self, minimum: float, maximum: float, samples: NDArray[np.float32]) -> None:
        """Add one image's range and samples (any shape).

        Raises:
            CalibrationError: a value is NaN or infinite.
        """
        if not (math.isfinite(minimum) and math.isfinite(maximum)):
            raise CalibrationError(f"its range is {minimum} to {maximum}")
        if not np.isfinite(samples).all():
            raise CalibrationError("it has NaN or infinite values")
        self.minimum = min(self.minimum, minimum)
        self.maximum = max(self.maximum, maximum)
        self._widen(_exponent_for(max(abs(minimum), abs(maximum))))
        scaled = np.floor(np.ldexp(samples.ravel(), -self.exponent)).astype(np.int32)
        self.counts += np.bincount(scaled + BINS, minlength=2 * BINS)

    def merge(self, other: "TensorStatistics") -> None:
        """Add what another run saw: the result is that of one run over both sets of images."""
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)
        self._widen(other.exponent)
        twin = TensorStatistics(exponent=other.exponent, counts=other.counts.copy())
        twin._widen(self.exponent)
        self.counts += twin.counts

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
            "min": self.minimum,
            "max": self.maximum,
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
        minimum, maximum = float(content["min"]), float(content["max"])
        if not -math.inf < minimum <= maximum < math.inf:
            raise ValueError(f"its range is {minimum} to {maximum}")
        counts[first : first + values.size] = values
        exponent = int(content["bin_exponent"])
        if exponent != _exponent_for(max(abs(minimum), abs(maximum))):
            raise ValueError(f"bins of 2^{exponent} do not suit its range")
        return cls(minimum=minimum, maximum=maximum, exponent=exponent, counts=counts)


def _exponent_for(magnitude: float) -> int:
    """Return the smallest exponent whose BINS bins reach beyond ``magnitude``."""
    if magnitude == 0:
        return SMALLEST_EXPONENT
    # frexp: magnitude = m · 2^e with m in [0.5, 1), so magnitude < 2^e = BINS · 2^(e - log2(BINS))
    return max(SMALLEST_EXPONENT, math.frexp(magnitude)[1] - BINS.bit_length() + 1)
