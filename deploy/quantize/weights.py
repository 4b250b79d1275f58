"""The accuracy levers that work on weights: how they are rounded, and what biases make up for."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from threadpoolctl import threadpool_limits

from deploy.calibration.preprocess import Float32Array
from deploy.graph.graph import Graph, without_unused_constants
from deploy.quantize import rounding
from deploy.quantize.int8 import QuantizedWeight, bias_of
from deploy.quantize.moments import Float64, Moments, collect_moments
from deploy.quantize.recipe import Rounding

ROUNDERS: dict[Rounding, list[rounding.Rounder]] = {
    Rounding.NEAREST: [],
    Rounding.SECOND_ORDER: [rounding.round_second_order],
    Rounding.ADAROUND: [rounding.round_second_order, rounding.round_learned],
}


@dataclass(frozen=True, kw_only=True)
class ImprovedWeights:
    """What the levers made of the convolutions, by node."""

    weights: dict[str, QuantizedWeight]
    biases: dict[str, Float32Array]  # (M,), corrected; empty where they stay as they are
    gain_db: dict[str, float]  # how much less the result's error is than with the nearest integers


def improve_weights(
    graph: Graph,
    weights: Mapping[str, QuantizedWeight],
    images: Sequence[Float32Array],
    *,
    method: Rounding,
    correct_biases: bool,
    weight_max: int,
    largest: int,
    only: Collection[str] | None = None,
    threads: int | None = None,
) -> ImprovedWeights:
    """Round weights by ``method`` and correct the biases for the mean error that is left.

    The linear algebra runs in one thread: the last bits of a matrix's inverse depend on how many
    share the work, and with them a weight that is close to the middle of two integers.

    Bias correction: Nagel et al. 2019, arXiv 1906.04721, section 4.2, from calibration data: the
    bias takes (W - s q) E[x]. A convolution without a bias gets one.

    Args:
        graph: the float graph; not changed.
        weights: of the convolutions to quantize, rounded to the nearest.
        images: inputs (1, 3, H, W) to take the moments from.
        method: how to round.
        correct_biases: whether to.
        weight_max: the largest magnitude of an integer weight.
        largest: values that go into one output, up to which convolutions are rounded by other
            methods than the nearest: their cost grows with the cube.
        only: names of the convolutions that are wanted, whose results are the same as with all.
        threads: in which the network runs; by default one for each processor.
    """
    nodes = [node for node in graph.model.graph.node if node.name in weights]
    rounders = ROUNDERS[method]
    improved: dict[str, QuantizedWeight] = {}
    gain: dict[str, float] = {}
    biases: dict[str, Float32Array] = {}
    with _one_thread():
        size = largest if rounders else 0
        for moments in collect_moments(graph, nodes, images, size, only, threads):
            for node in (n for n in nodes if n.name in moments):
                weight, known = (
                    graph.constants[node.input[1]].astype(np.float64),
                    moments[node.name],
                )
                nearest = weights[node.name]
                found = _round(weight, nearest, known, rounders, correct_biases, weight_max)
                improved[node.name], gain[node.name] = found
                if correct_biases:
                    shift = _mean_error(weight, improved[node.name], known)
                    bias = bias_of(graph, node)
                    biases[node.name] = (shift if bias is None else bias + shift).astype(np.float32)
                del known
            del moments  # else they would be held while the next ones are collected
    return ImprovedWeights(weights=improved, biases=biases, gain_db=gain)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep numpy's and torch's linear algebra to one thread; onnxruntime has threads of its own."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


def _round(
    weight: Float64,
    nearest: QuantizedWeight,
    moments: Moments,
    rounders: Sequence[rounding.Rounder],
    bias_is_corrected: bool,
    limit: int,
) -> tuple[QuantizedWeight, float]:
    """Return the best rounding and by how many dB its error is below the nearest's."""
    second = moments.covariance if bias_is_corrected else moments.second
    if second is None:
        return nearest, 0.0
    scale = np.asarray(nearest.scale, np.float64).reshape(-1, *[1] * (weight.ndim - 1))
    grouped = (len(second), -1, second.shape[1])
    in_steps = (weight / scale).reshape(grouped)
    candidates = [nearest.q.astype(np.float64).reshape(grouped)]
    candidates += [rounder(in_steps, second, limit) for rounder in rounders]
    # channels differ in their scale: the errors in steps are weighted by it
    weighting = np.broadcast_to(scale, weight.shape).reshape(grouped)
    errors = [rounding.error(in_steps * weighting, q * weighting, second) for q in candidates]
    best = int(np.argmin(errors))
    gain = 10 * np.log10(errors[0] / errors[best]) if min(errors) > 0 else 0.0
    q = candidates[best].reshape(weight.shape).astype(np.int8)
    return QuantizedWeight(q=q, scale=nearest.scale), float(gain)


def _mean_error(weight: Float64, quantized: QuantizedWeight, moments: Moments) -> Float64:
    """Return what the rounding of the weights takes from the mean of each output channel, (M,)."""
    scale = np.asarray(quantized.scale, np.float64).reshape(-1, *[1] * (weight.ndim - 1))
    groups, size = moments.mean.shape
    lost = (weight - quantized.q * scale).reshape(groups, -1, size)
    mean: Float64 = (lost @ moments.mean[:, :, None]).reshape(-1)
    return mean


def with_biases(graph: Graph, biases: Mapping[str, Float32Array]) -> Graph:
    """Return the graph with the biases of its convolutions, by node, replaced or added."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    for node in model.graph.node:
        if node.name in biases:
            name = f"{node.name}.bias_corrected"
            model.graph.initializer.append(numpy_helper.from_array(biases[node.name], name))
            node.input[:] = [*node.input[:2], name]
    return Graph(without_unused_constants(model))
