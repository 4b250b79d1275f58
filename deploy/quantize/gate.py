"""The accuracy gate: what INT8 may cost, and what returns to float until it costs no more.

The search looks at a tuning set, images of the calibration split that calibrated nothing. The
evaluation split is looked at once, to confirm what was found.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy.errors import DeployError

if TYPE_CHECKING:
    from deploy.validate.scores import Result

DEFAULT_MIN_RATIO = 0.99  # MLPerf's lower demand, of the float network's accuracy


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What an INT8 graph must keep of the float graph's mIoU, and what may be spent on it."""

    min_ratio: float | None = None  # INT8's mIoU over the float graph's
    max_drop: float | None = None  # points
    max_float_layers: int = 8  # convolutions that may return to float
    images: int = 50  # of the tuning set

    def __post_init__(self) -> None:
        if self.min_ratio is None and self.max_drop is None:
            raise DeployError("a gate needs --min-ratio or --max-drop")
        if self.min_ratio is not None and not 0 < self.min_ratio <= 1:
            raise DeployError(f"--min-ratio {self.min_ratio}: it must be above 0 and at most 1")
        if self.max_drop is not None and not 0 <= self.max_drop <= 100:
            raise DeployError(f"--max-drop {self.max_drop}: it must not be negative, nor above 100")

    def holds(self, result: "Result") -> bool:
        """Say whether a graph's accuracy passes."""
        if result.miou_ratio is None or result.miou_drop is None:
            return False
        enough = self.min_ratio is None or result.miou_ratio.value >= self.min_ratio
        return enough and (self.max_drop is None or 100 * result.miou_drop.value <= self.max_drop)
