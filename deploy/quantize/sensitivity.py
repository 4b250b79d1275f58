"""Which layers an INT8 graph suffers from, by what the logits gain when one returns to float."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from deploy.calibration.preprocess import Float32Array
from deploy.graph.graph import Graph
from deploy.quantize.moments import patch_size
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
    model, placement = plan.build()
    base = _noise(float_logits, run(model, images))
    convolutions = [
        node.name
        for node in plan.graph.model.graph.node
        if node.op_type == "Conv" and node.name in placement.nodes
    ]
    harms = []
    for name in track(convolutions):
        noise = _noise(float_logits, run(plan.build({name})[0], images))
        harms.append(LayerHarm(node=name, share=(base - noise) / base if base else 0.0))
    return sorted(harms, key=lambda harm: -harm.share)


def int8_share(graph: Graph, float_nodes: Collection[str]) -> float:
    """Return the share of the convolutions' multiply-accumulates that 8 bits compute."""
    work = {
        node.name: int(np.prod(graph.shapes[node.output[0]])) * patch_size(graph, node)
        for node in graph.model.graph.node
        if node.op_type == "Conv" and node.input[1] in graph.constants
    }
    kept = sum(macs for name, macs in work.items() if name in float_nodes)
    return 1 - kept / sum(work.values())


def _noise(reference: Logits, logits: Logits) -> float:
    return float(sum(np.square(a - b).sum() for a, b in zip(reference, logits, strict=True)))
