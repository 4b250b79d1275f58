"""Chips with Qualcomm's HTP, as the backend knows them."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, kw_only=True)
class Chip:
    """A chip with an HTP, as the backend knows it."""

    name: str
    soc_model: int  # the backend's number of it, the provider's option ``soc_model``
    arch: int  # of the HTP: 68 is v68
    has_half: bool  # whether it computes floats, in half precision; the others refuse them


# Each was seen on 26 November 2026 with onnxruntime-qnn 2.7.0 (QNN interface 2.40.0): the backend
# prepares and executes a small INT8 graph under the number, and its log says name ("SoC model name
# is SM8550"), architecture ("DSP arch (min_arch) = 73") and halves ("SocModel supports FP16"),
# which depend on the chip, not on its architecture. Under every number of a chip without halves it
# refuses a float Conv, but under 30: that is where the backend starts from, and its check of
# operators is not told of a chip.
CHIPS: Mapping[str, Chip] = MappingProxyType(
    {
        name: Chip(name=name, soc_model=soc_model, arch=arch, has_half=has_half)
        for name, soc_model, arch, has_half in (
            ("sm8350", 30, 68, False),  # Snapdragon 888
            ("sm7325", 35, 68, False),  # Snapdragon 778G
            ("sc8280x", 37, 68, False),  # Snapdragon 8cx Gen 3
            ("qcs6490", 93, 68, False),
            ("sa8295", 39, 68, True),
            ("sm8450", 36, 69, True),  # Snapdragon 8 Gen 1
            ("sm8475", 42, 69, True),  # Snapdragon 8+ Gen 1
            ("sm7475", 54, 69, False),  # Snapdragon 7+ Gen 2
            ("sm8550", 43, 73, True),  # Snapdragon 8 Gen 2
            ("qcs8550", 66, 73, True),
            ("qcs9100", 77, 73, True),
            ("sc8380xp", 60, 73, True),  # Snapdragon X Elite
            ("sm7550", 64, 73, False),  # Snapdragon 7 Gen 3
            ("sm8635", 68, 73, False),  # Snapdragon 8s Gen 3
            ("sm8735", 85, 73, False),  # Snapdragon 8s Gen 4
            ("sm8650", 57, 75, True),  # Snapdragon 8 Gen 3
            ("qcs8300", 82, 75, True),
            ("sm8750", 69, 79, True),  # Snapdragon 8 Elite
            ("sm8850", 87, 81, True),  # Snapdragon 8 Elite Gen 5
            ("sc8480xp", 88, 81, True),  # Snapdragon X2 Elite
        )
    }
)
DEFAULT_CHIP = "sm8550"
