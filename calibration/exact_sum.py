"""Sums that do not depend on the order of their terms."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from calibration.preprocess import Float32Array

Float64Array = NDArray[np.float64]


def _empty() -> Float64Array:
    return np.empty(0)


@dataclass(kw_only=True)
class ExactSum:
    """Element-wise sum of float32 arrays of one shape, as ``high + low``, both float64.

    Unevaluated pairs keep 106 bits (Dekker 1971, "A floating-point technique for extending the
    available precision"), so the sum is exact, and ``high`` and ``low`` the same in any order,
    while the terms of an element lie within a factor of 2^70 of each other.
    """

    high: Float64Array = field(default_factory=_empty)
    low: Float64Array = field(default_factory=_empty)

    def add(self, values: Float32Array | Float64Array) -> None:
        """Add an array; the first one gives the shape."""
        if not self.high.size:
            self.high, self.low = np.zeros(values.shape), np.zeros(values.shape)
        total, error = _two_sum(self.high, values.astype(np.float64))
        self.high, self.low = _two_sum(total, self.low + error)

    def merge(self, other: "ExactSum") -> None:
        """Add another sum."""
        if other.high.size:
            self.add(other.high)
            self.add(other.low)


def _two_sum(a: Float64Array, b: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Return s and e with s = fl(a + b) and s + e = a + b (Knuth, TAOCP 2, section 4.2.2)."""
    s = a + b
    part = s - a
    return s, (a - (s - part)) + (b - part)
