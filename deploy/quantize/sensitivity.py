"""Which layers an INT8 graph suffers from, by what the logits gain when one returns to float."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from deploy.calibration.preprocess import Float32Array
from deploy.graph.graph import Graph
from deploy.quantize.moments import patch_size
from deploy.quantize.placement import place
from deploy.quantize.plan import Int8Plan

Logits = list[Float32Array]
Run = Callable[[onnx.ModelProto, Sequence[Float32Array]], Logits]
Track = Callable[[Sequence[str]], Iterable[str]]


@dataclass(frozen=True, kw_only=True)
class LayerHarm:
    """What quantizing one convolution does."""

    node: str
    share: float  # of the noise energy in the logits that goes when the layer returns to float


def rank_layers(
    plan: Int8Plan,
    float_logits: Logits,
    images: Sequence[Float32Array],
    run: Run,
    track: Track = tuple,
) -> list[LayerHarm]:
    """Return the quantized convolutions, the most harmful first.

    Each is measured where it stands, in the graph that is quantized but for it: noise that the
    layers after it make worse counts for it, and what others add anyway does not.

    Args:
        plan: the INT8 graph's.
        float_logits: of the float graph on ``images``.
        images: inputs (1, 3, H, W) that calibrated.
        run: gives a graph's logits on images.
        track: wraps the names of the layers to show progress.
    """
    base = noise_energy(float_logits, run(plan.build()[0], images))
    noises = {
        name: noise_energy(float_logits, run(plan.build({name})[0], images))
        for name in track(convolutions_of(plan))
    }
    return ranked(base, noises)


def convolutions_of(plan: Int8Plan) -> list[str]:
    """Return the names of the convolutions that a plan quantizes, in the graph's order."""
    quantized = place(plan.graph, plan.profile).nodes
    nodes = plan.graph.model.graph.node
    return [node.name for node in nodes if node.op_type == "Conv" and node.name in quantized]


def ranked(base: float, noises: Mapping[str, float]) -> list[LayerHarm]:
    """Return the convolutions, the most harmful first.

    Args:
        base: the noise of the graph in which all are quantized.
        noises: of the graphs in which one is not, by its name.
    """
    harms = [
        LayerHarm(node=name, share=(base - noise) / base if base else 0.0)
        for name, noise in noises.items()
    ]
    return sorted(harms, key=lambda harm: -harm.share)


def noise_energy(reference: Logits, logits: Logits) -> float:
    """Return the squared difference of logits, summed over all images."""
    return float(sum(np.square(a - b).sum() for a, b in zip(reference, logits, strict=True)))


def int8_share(graph: Graph, float_nodes: Collection[str]) -> float:
    """Return the share of the convolutions' multiply-accumulates that 8 bits compute."""
    work = {
        node.name: int(np.prod(graph.shapes[node.output[0]])) * patch_size(graph, node)
        for node in graph.model.graph.node
        if node.op_type == "Conv" and node.input[1] in graph.constants
    }
    kept = sum(macs for name, macs in work.items() if name in float_nodes)
    return 1 - kept / sum(work.values())
