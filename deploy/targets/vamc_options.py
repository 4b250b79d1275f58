"""Keys of ``backend.quantize`` in vamc's configuration that it does without, and their values.

Collected from the model zoo's configurations and from the options of TVM's relay.quantize, which
vamc is made from (``backend.type: tvm_vacc``); vamc itself is closed.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from deploy.errors import DeployError


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


# Each key: what its value must be, in words, and the check.
OPTIONS: Mapping[str, tuple[str, Callable[[Any], bool]]] = MappingProxyType(
    {
        "calibrate_chunk_by": (
            "how many tensors to hold at a time, a whole number, or -1 for all",
            lambda value: value == -1 or _is_whole(value, 1),
        ),
        "calibrate_range": (
            "the share of values in range, above 0 and up to 1, such as 0.9999",
            lambda v: isinstance(v, int | float) and not isinstance(v, bool) and 0 < v <= 1,
        ),
        "overflow_adaptive": ("0, 1, true or false", lambda value: value in (0, 1)),
        "skip_conv_layers": (
            "a list of the numbers of convolutions that stay float, such as [0, 77]",
            lambda value: isinstance(value, list) and all(_is_whole(each, 0) for each in value),
        ),
        "weight_scale": ("max or power2", lambda value: value in ("max", "power2")),
    }
)


def check(options: Mapping[str, Any]) -> None:
    """Raise DeployError at the first option that is unknown or whose value does not suit."""
    for key, value in options.items():
        if key not in OPTIONS:
            raise DeployError(f"vamc has no option {key!r}: use one of {', '.join(OPTIONS)}")
        wanted, suits = OPTIONS[key]
        if not suits(value):
            raise DeployError(f"vamc's {key} is {value!r}: it must be {wanted}")
