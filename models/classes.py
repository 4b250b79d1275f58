"""How many classes parameters are for, and what those are called."""

from collections.abc import Mapping
from pathlib import Path

import safetensors
from torch import Tensor

from deploy.models.errors import ModelError

CLASSIFIERS = ("clf_conv", "segm")  # the last convolution, as the checkpoints call it
METADATA_KEY = "classes"  # of a safetensors file: names, comma-separated, in the order of labels


def count_classes(state: Mapping[str, Tensor]) -> int | None:
    """Return the number of classes that parameters are for; None if no classifier is among them."""
    found = [state[key] for key in (f"{name}.weight" for name in CLASSIFIERS) if key in state]
    return len(found[0]) if found and found[0].dim() else None


def read_class_names(path: Path) -> tuple[str, ...] | None:
    """Return the classes by label that a safetensors file names, as ``deploy train`` writes them.

    Raises:
        ModelError: the file cannot be read.
    """
    if path.suffix != ".safetensors":
        return None
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(METADATA_KEY)
    except (OSError, safetensors.SafetensorError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from None
    return tuple(text.split(",")) if text else None
