"""What a RefineNet is: the networks, their parameters, their cost. Needs torch only.

Torch is loaded when what needs it is first used: the list of variants does not.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from deploy.models.errors import ModelError
from deploy.models.sources import WeightsSource, find_weights
from deploy.models.variants import DEFAULT_VARIANT, VARIANTS, Variant, build

if TYPE_CHECKING:
    from deploy.models.checkpoint import build_with_weights, load_checkpoint, state_dict_hash
    from deploy.models.classes import count_classes, read_class_names
    from deploy.models.cost import count_macs, count_parameters

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
_MODULES = {
    "build_with_weights": "checkpoint",
    "count_classes": "classes",
    "count_macs": "cost",
    "count_parameters": "cost",
    "load_checkpoint": "checkpoint",
    "read_class_names": "classes",
    "state_dict_hash": "checkpoint",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"deploy.models.{_MODULES[name]}"), name)
