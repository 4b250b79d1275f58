"""Scales of a quantized graph that look wrong, whatever its target."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deploy.inspect.scales import QuantizedWeight, Scales, by_channel

FAR = 64.0  # times as large, or as small, as all neighbours: suspicious
HUGE = 1e6  # of an activation's range; a half holds no more than 65504
FEW_STEPS = 3  # of a weight's 127 that a channel uses: hardly any precision is left
NORMAL = float(np.finfo(np.float32).tiny)  # below it float32 is denormal: slow, and 0 on some chips
INT32_MAX = np.iinfo(np.int32).max


@dataclass(frozen=True, kw_only=True)
class Suspicion:
    """Something about a scale that is seldom meant."""

    what: str
    where: str  # a tensor or a node
    problem: str


def find_suspicions(scales: Scales) -> list[Suspicion]:
    """Return what looks wrong about the scales of a graph, activations first."""
    found = [*_of_activations(scales), *_far_ranges(scales)]
    for weight in scales.weights:
        found += _of_weight(weight)
    return found


def _of_activations(scales: Scales) -> Iterator[Suspicion]:
    for tensor in scales.activations:
        if problem := _bad_scale(np.array(tensor.scale)):
            yield Suspicion(what="scale", where=tensor.tensor, problem=problem)
        elif tensor.high - tensor.low > HUGE:
            shown = f"range {tensor.low:.4g} … {tensor.high:.4g} is huge"
            yield Suspicion(what="range", where=tensor.tensor, problem=shown)


def _bad_scale(scale: NDArray[np.float64]) -> str | None:
    """Return what no scale should be, or None."""
    if not np.isfinite(scale).all():
        return "scale is not finite"
    if (scale <= 0).any():
        return f"scale is {scale.min():.4g}: it must be above 0"
    if (scale < NORMAL).any():
        return f"scale {scale.min():.4g} is denormal in float32"
    return None


def _far_ranges(scales: Scales) -> Iterator[Suspicion]:
    """Find ranges much larger or smaller than those of all tensors next to them."""
    size = {t.tensor: max(abs(t.low), abs(t.high)) for t in scales.activations}
    for name, near in scales.neighbours.items():
        sizes = [size[other] for other in near if 0 < size[other] < np.inf]
        if not sizes or not 0 < size[name] < np.inf:
            continue
        ratio = size[name] / max(sizes)
        inverse = min(sizes) / size[name]
        if max(ratio, inverse) > FAR:
            how = f"{ratio:.0f} times as large" if ratio > FAR else f"{inverse:.0f} times as small"
            shown = f"range ±{size[name]:.4g} is {how} as those next to it"
            yield Suspicion(what="far-range", where=name, problem=shown)


def _of_weight(weight: QuantizedWeight) -> Iterator[Suspicion]:
    """Find bad scales, channels without values, and sums that do not fit 32 bits."""
    if problem := _bad_scale(weight.scale):
        yield Suspicion(what="weight-scale", where=weight.node, problem=problem)
    channels = by_channel(weight)
    largest = np.abs(channels).max(axis=1, initial=0)
    count = len(largest)
    if dead := int((largest == 0).sum()):
        shown = f"weights of {dead} of {count} output channels are all 0"
        yield Suspicion(what="dead-channels", where=weight.node, problem=shown)
    if few := int(((largest > 0) & (largest <= FEW_STEPS)).sum()):
        shown = f"{few} of {count} output channels use no more than ±{FEW_STEPS} of ±127"
        yield Suspicion(what="coarse-channels", where=weight.node, problem=shown)
    bias = np.zeros(1, np.int64) if weight.bias is None else weight.bias.astype(np.int64)
    at_limit = int((np.abs(bias) >= INT32_MAX).sum())
    if at_limit:
        shown = f"{at_limit} biases are at the limit of 32 bits"
        yield Suspicion(what="bias-overflow", where=weight.node, problem=shown)
    elif weight.data is not None and weight.data.type in ("uint8", "int8"):
        limits = np.iinfo(weight.data.type)
        reach = max(abs(int(end) - weight.data.zero_point) for end in (limits.min, limits.max))
        sums = np.abs(channels).sum(axis=1) * reach + np.abs(bias)
        if over := int((sums > INT32_MAX).sum()):
            shown = f"sums of {over} of {count} output channels may not fit 32 bits"
            yield Suspicion(what="accumulator-overflow", where=weight.node, problem=shown)
