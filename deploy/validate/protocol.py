"""Where labels are compared."""

from enum import StrEnum

from deploy.calibration.preprocess import Fit


class Protocol(StrEnum):
    """Where labels are compared: in the input's frame, after a fit, or in the image's own."""

    CROP = "crop"
    SQUASH = "squash"
    PAD = "pad"
    NATIVE = "native"  # squashed input; logits resized to the image's own size

    @property
    def fit(self) -> Fit:
        """How images become inputs."""
        return Fit.SQUASH if self is Protocol.NATIVE else Fit(self.value)
