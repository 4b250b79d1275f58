"""What a RefineNet is: the networks, their parameters, their cost. Needs torch only."""

from deploy.models.checkpoint import build_with_weights, load_checkpoint, state_dict_hash
from deploy.models.classes import count_classes, read_class_names
from deploy.models.cost import count_macs, count_parameters
from deploy.models.errors import ModelError
from deploy.models.sources import WeightsSource, find_weights
from deploy.models.variants import DEFAULT_VARIANT, VARIANTS, Variant, build

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
