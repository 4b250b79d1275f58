"""Figures as a person reads them, in the terminal and in the reports; a dash for what is missing.

Shares become percent, and differences of shares become points.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from deploy.calibration.dataset import SCENES_NAME, VOC_NAME

SCENES_NOTE = (
    "Drawn scenes, not photographs: mIoU compares graphs with each other, "
    "not with published figures."
)


MEASURED = "docs/accuracy.md"  # in the repository; has those that ship with random ones, too


FINENESS = (
    "Two right evaluations of one INT8 graph differ as well, where sums of floats end on two sides "
    "of a rounding: on 60 images by up to 0.5 points of mIoU, 0.1 of agreement and 0.4 dB."
)


def percent(value: float | None, digits: int = 2) -> str:
    """Format a share as a percentage, without the sign."""
    return "–" if value is None else f"{100 * value:z.{digits}f}"


def number(value: float | None, digits: int = 1, scale: float = 1.0) -> str:
    """Format ``value / scale``."""
    return "–" if value is None else f"{value / scale:z,.{digits}f}"


def interval(estimate: Mapping[str, float | None] | None, digits: int = 2) -> str:
    """Format a share and its interval in percent: "0.12 [-0.20, 0.45]"; what there is of them."""
    if estimate is None:
        return "–"
    value, low, high = (percent(estimate[key], digits) for key in ("value", "low", "high"))
    return value if estimate["low"] is None else f"{value} [{low}, {high}]"


def change(old: float | None, new: float | None, digits: int = 2, scale: float = 100.0) -> str:
    """Format what a figure was, what it is, and the difference: "39.43 → 39.31 (-0.12)"."""
    if old is None or new is None:
        sides = ("–" if side is None else f"{scale * side:z,.{digits}f}" for side in (old, new))
        return "–" if old is new else " → ".join(sides)
    before, after = f"{scale * old:z,.{digits}f}", f"{scale * new:z,.{digits}f}"
    difference = f"{scale * (new - old):+z.{digits}f}"
    return f"{after}" if before == after else f"{before} → {after} ({difference})"


def graph_title(name: str) -> str:
    """Return a graph's name as a heading: "torch", "FP32", "INT8", "INT8 tensorrt"."""
    precision, _, target = name.partition("-")
    return " ".join(filter(None, (precision if name == "torch" else precision.upper(), target)))


def data_set(dataset: Mapping[str, Any]) -> str:
    """Name what was evaluated: "216 images of VOC2012 val"."""
    if is_drawn(dataset):
        return f"{dataset['images']} drawn scenes of {dataset['split']}"
    return f"{dataset['images']} images of {dataset['name']} {dataset['split']}"


def random_note(images: Iterable[int]) -> str:
    """Say what figures of random parameters mean, and on how many images they were measured."""
    counts = sorted(set(images))
    number_of = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return (
        "random: seeded random parameters, which have no accuracy, only fidelity to torch, here on "
        f"{number_of} images. Variants measured with trained parameters: {MEASURED}."
    )


def is_drawn(dataset: Mapping[str, Any]) -> bool:
    """Say whether the images were drawn by ``deploy scenes``."""
    return bool(dataset["name"] == SCENES_NAME)


def has_published(dataset: Mapping[str, Any]) -> bool:
    """Say whether others' figures, which are of VOC, have a place beside those of the images."""
    return dataset["name"] in (VOC_NAME, SCENES_NAME)


def asked(record: Mapping[str, Any]) -> str:
    """Say what an accuracy gate asks: "ratio at least 0.99 and drop at most 0.5 points"."""
    gate = record["gate"]
    parts = [f"ratio at least {gate['min_ratio']}"] if gate["min_ratio"] is not None else []
    parts += [f"drop at most {gate['max_drop']} points"] if gate["max_drop"] is not None else []
    return " and ".join(parts)
