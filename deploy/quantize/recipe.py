"""Which accuracy levers are pulled, from none to all."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from deploy.quantize.weights import Rounding


class RecipeName(StrEnum):
    """A named set of levers."""

    PLAIN = "plain"
    FAST = "fast"
    ACCURATE = "accurate"
    AUTO = "auto"  # the cheapest that meets the gate


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The levers; each can be switched by itself."""

    name: str
    equalize: bool = False  # bring the channels of a tensor to like ranges
    rounding: Rounding = Rounding.NEAREST
    correct_biases: bool = False
    largest: int = 0  # values that make one output, up to which convolutions get this rounding
    images: int = 24  # calibration images that the rounding and the biases look at

    @property
    def needs_images(self) -> bool:
        """Whether the weights depend on images at all."""
        return self.correct_biases or self.rounding is not Rounding.NEAREST


RECIPES: Mapping[RecipeName, Recipe] = MappingProxyType(
    {
        RecipeName.PLAIN: Recipe(name="plain"),
        # depthwise and other small convolutions: most of the gain, for the cost of a forward pass
        RecipeName.FAST: Recipe(
            name="fast", rounding=Rounding.SECOND_ORDER, correct_biases=True, largest=64
        ),
        RecipeName.ACCURATE: Recipe(
            name="accurate",
            equalize=True,
            rounding=Rounding.ADAROUND,
            correct_biases=True,
            largest=2304,
            images=48,
        ),
    }
)
LADDER = (RecipeName.PLAIN, RecipeName.FAST, RecipeName.ACCURATE)  # by cost
