"""What a RefineNet is: the networks, their parameters, their cost. Needs torch only."""

from models.checkpoint import (
    WeightsSource,
    build_with_weights,
    find_weights,
    load_checkpoint,
    state_dict_hash,
)
from models.classes import count_classes, read_class_names
from models.cost import count_macs, count_parameters
from models.errors import ModelError
from models.variants import DEFAULT_VARIANT, VARIANTS, Variant, build

__all__ = [
    "DEFAULT_VARIANT",
    "VARIANTS",
    "ModelError",
    "Variant",
    "WeightsSource",
    "build",
    "build_with_weights",
    "count_classes",
    "count_macs",
    "count_parameters",
    "find_weights",
    "load_checkpoint",
    "read_class_names",
    "state_dict_hash",
]
