"""Whether results that were read from a file have the form that validation writes."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Check = Callable[[Any], bool]


def is_text(value: Any) -> bool:
    """Say whether a value is a text."""
    return isinstance(value, str)


def is_truth(value: Any) -> bool:
    """Say whether a value is true or false."""
    return isinstance(value, bool)


def is_count(value: Any) -> bool:
    """Say whether a value is a whole number that is not negative."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_number(value: Any) -> bool:
    """Say whether a value is a finite number; JSON as Python reads it knows NaN too."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_positive(value: Any) -> bool:
    """Say whether a value is a finite number above zero."""
    return is_number(value) and value > 0


def is_file_name(value: Any) -> bool:
    """Say whether a value is the name of a file, without a folder."""
    return is_text(value) and Path(value).name == value


def _or_null(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _list_of(check: Check, length: int | None = None) -> Check:
    return lambda value: (
        isinstance(value, list)
        and (length is None or len(value) == length)
        and all(map(check, value))
    )


def _dict_of(check: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


def _record(fields: Mapping[str, Check]) -> Check:
    return lambda value: isinstance(value, dict) and not wrong_fields(value, fields)


def wrong_fields(content: Mapping[str, Any], fields: Mapping[str, Check]) -> list[str]:
    """Return the keys of ``fields`` that are missing or hold what their check refuses."""
    return [key for key, check in fields.items() if key not in content or not check(content[key])]


_SHARE = _or_null(is_number)
_INTERVAL = _or_null(_record({"value": is_number, "low": _SHARE, "high": _SHARE}))
_COSTS = {
    "miou": _SHARE,
    "miou_drop": _INTERVAL,
    "miou_ratio": _INTERVAL,
    "agreement": _SHARE,
    "sqnr_db": _SHARE,
    "latency_ms": is_positive,
}
_DEFAULT_OPTIONS = {key: check for key, check in _COSTS.items() if key != "miou_ratio"}
_FIGURES = {
    **_COSTS,
    "default_options": _or_null(_record(_DEFAULT_OPTIONS)),
    "per_class_iou": _or_null(_dict_of(_SHARE)),
    "pixel_accuracy": _SHARE,
    "cosine": _SHARE,
    "int8_convolutions": _or_null(_list_of(is_count, 2)),
    "footprint": _or_null(_dict_of(is_count)),
    "device": _or_null(_dict_of(is_number)),
    "size_bytes": is_count,
    "sha256": _or_null(is_text),
}
_STEP = {
    **_COSTS,
    "recipe": is_text,
    "float_layers": is_count,
    "int8_share_of_macs": is_number,
    "held": is_truth,
}
GATE: Mapping[str, Check] = {
    "gate": _record({"min_ratio": _SHARE, "max_drop": _SHARE}),
    "target": is_text,
    "tuning_images": is_count,
    "steps": _list_of(_record(_STEP)),
    "evaluated_images": is_count,
    "confirmed": _or_null(_record(_COSTS)),
    "held": is_truth,
}
_LAYER = {"node": is_text, "op_type": is_text, "tensor": is_text, "sqnr_db": _SHARE}
_LAYERS = {
    "graph": is_text,
    "images": is_count,
    "equalized": is_truth,
    "layers": _list_of(_record(_LAYER)),
}
_PICTURE = _record({"file": is_file_name, "sha256": is_text})
_EXAMPLE = {
    "name": is_text,
    "disagreement": is_number,
    "pictures": _record(dict.fromkeys(("image", "truth", "torch", "int8", "difference"), _PICTURE)),
}
_EXAMPLES = {
    "graph": is_text,
    "images": _list_of(_record(_EXAMPLE)),
    "legend": _list_of(_record({"name": is_text, "color": is_text})),
}
VALIDATION: Mapping[str, Check] = {
    "schema": is_count,
    "name": is_text,
    "command": _or_null(is_text),
    "runtime": _or_null(is_text),
    "soc": _or_null(is_text),
    "exact_options": _or_null(is_text),
    "dataset": _record(
        {
            "name": is_text,
            "split": is_text,
            "images": is_count,
            "images_sha256": is_text,
            "protocol": is_text,
            "input_size": _list_of(is_count, 2),
            "classes": is_count,
        }
    ),
    "environment": _record(
        {
            "date": is_text,
            "cpu": is_text,
            "instruction_sets": _list_of(is_text),
            "threads": is_count,
            "memory_gib": _or_null(is_number),
            "system": is_text,
            "python": is_text,
            "versions": _dict_of(is_text),
        }
    ),
    "weights": _record({"source": is_text, "sha256": is_text}),
    "parameters": is_count,
    "macs": is_number,
    "calibration": _or_null(
        _record({"method": _or_null(is_text), "images": is_count, "recipe": _or_null(is_text)})
    ),
    "gate": _or_null(_record(GATE)),
    "results": _dict_of(_record(_FIGURES)),
    "layers": _or_null(_record(_LAYERS)),
    "examples": _or_null(_record(_EXAMPLES)),
}
# In another runtime: an emulator's time says nothing.
ELSEWHERE: Mapping[str, Check] = {
    **VALIDATION,
    "results": _dict_of(_record({**_FIGURES, "latency_ms": _or_null(is_positive)})),
}


def find_problem(content: Any, fields: Mapping[str, Check]) -> str | None:
    """Return what keeps a file's content from being used, as the end of "the file …", or None."""
    if not isinstance(content, dict):
        return f"holds {type(content).__name__}, not an object"
    missing = [key for key in fields if key not in content]
    if missing:
        return f"lacks {missing[0]!r}"
    wrong = wrong_fields(content, fields)
    return f"has no usable {wrong[0]!r}" if wrong else None
