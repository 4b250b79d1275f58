"""Which accuracy levers are pulled, from none to all."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from types import MappingProxyType


class Rounding(StrEnum):
    """How weights become integers; each tries what the one before it does, too."""

    NEAREST = "nearest"
    SECOND_ORDER = "second-order"  # one pass, errors made up for by what follows
    ADAROUND = "adaround"  # learned


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
    def improves_weights(self) -> bool:
        """Whether weights or biases become others than the nearest integers."""
        return self.correct_biases or self.rounding is not Rounding.NEAREST

    @property
    def needs_images(self) -> bool:
        """Whether it looks at calibration images, beyond their statistics."""
        return self.equalize or self.improves_weights


RECIPES: Mapping[RecipeName, Recipe] = MappingProxyType(
    {
        RecipeName.PLAIN: Recipe(name="plain"),
        # depthwise and other small convolutions: most of the gain, for the cost of a forward pass
        RecipeName.FAST: Recipe(
            name="fast", rounding=Rounding.SECOND_ORDER, correct_biases=True, largest=1024
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


@dataclass(frozen=True, kw_only=True)
class Levers:
    """Levers set by hand; None leaves one to the recipe."""

    equalize: bool | None = None
    rounding: Rounding | None = None
    correct_biases: bool | None = None


def choose_recipes(name: RecipeName, levers: Levers) -> tuple[Recipe, ...]:
    """Return the recipes to try, the cheapest first, with the levers that are set by hand."""
    chosen = LADDER if name is RecipeName.AUTO else (name,)
    return tuple(_with_levers(RECIPES[n], levers) for n in chosen)


def _with_levers(recipe: Recipe, levers: Levers) -> Recipe:
    notes = [f"{k.replace('_', ' ')} {v}" for k, v in asdict(levers).items() if v is not None]
    if not notes:
        return recipe
    equalize, rounding, biases = levers.equalize, levers.rounding, levers.correct_biases
    return replace(
        recipe,
        name=f"{recipe.name} ({', '.join(notes)})",
        equalize=recipe.equalize if equalize is None else equalize,
        rounding=rounding or recipe.rounding,
        correct_biases=recipe.correct_biases if biases is None else biases,
        largest=recipe.largest or RECIPES[RecipeName.FAST].largest,
    )
