"""Channels of one tensor brought to like ranges, so that one scale serves them all.

Between two convolutions channel i may be divided by a positive s_i if the weights that follow are
multiplied by it: the network computes the same (cross-layer equalization: Nagel et al. 2019, arXiv
1906.04721, section 4.1; by the ranges of activations: Meller et al. 2019, arXiv 1902.01917). Here
s follows from the channels' ranges over the calibration images, for the weights have a scale for
each channel anyway.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from deploy.calibration.statistics import TensorStatistics
from deploy.graph.activations import activations
from deploy.graph.graph import Graph, attributes, without_unused_constants

Float64 = NDArray[np.float64]

# f(x / s) = f(x) / s; of Clip see _divisors
HOMOGENEOUS = ("Relu", "MaxPool", "AveragePool", "Resize", "Clip")
STRENGTH = 0.5  # 0: as they are; 1: all channels get one range; see Xiao et al. 2022, 2211.10438
LEAST = 1e-3  # of s: a channel that hardly ever speaks is not blown up to noise


def equalize(
    graph: Graph, statistics: Mapping[str, TensorStatistics], strength: float = STRENGTH
) -> Graph:
    """Return a graph that computes the same with channels of more equal range.

    It is the same for every input whose activations stay within the ranges in ``statistics``: a
    Clip to [0, 6] keeps its bound, which for a channel divided by s_i < 1 stands for 6·s_i, at or
    above the largest value seen. A quantizer saturates there as well.

    Args:
        graph: a float graph; not changed.
        statistics: of the tensors that calibration observed, with the range of each channel.
        strength: s_i = (range of channel i / range of the tensor) to this power, 0…1.
    """
    group = _linked_tensors(graph)
    divisors = _divisors(graph, group, statistics, strength)
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    for node in model.graph.node:
        if node.op_type != "Conv":
            continue
        before = divisors.get(group[node.input[0]])
        after = divisors.get(group[node.output[0]])
        for i, value in _rescaled(graph, node, before, after):
            name = f"{node.name}.{('weight', 'bias')[i - 1]}_equalized"
            model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
            node.input[i] = name
    return Graph(without_unused_constants(model))


def _rescaled(
    graph: Graph, node: onnx.NodeProto, before: Float64 | None, after: Float64 | None
) -> Iterator[tuple[int, Float64]]:
    """Yield the parameters of a convolution that change, by the number of the node's input."""
    if before is None and after is None:
        return
    weight = graph.constants[node.input[1]].astype(np.float64)
    groups = attributes(node).get("group", 1)
    if before is not None:  # (C,) → (M, C / groups, 1, 1): the channels that each output reads
        read = before.reshape(groups, 1, -1).repeat(len(weight) // groups, axis=1)
        weight = weight * read.reshape(len(weight), -1, 1, 1)
    if after is not None:
        weight = weight / after.reshape(-1, 1, 1, 1)
        if len(node.input) > 2 and node.input[2]:
            yield 2, graph.constants[node.input[2]].astype(np.float64) / after
    yield 1, weight


def _linked_tensors(graph: Graph) -> dict[str, str]:
    """Return for each activation the name of its group: tensors that must share one s."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    for node in graph.model.graph.node:
        names = [*activations(graph, node), *node.output]
        for name in names:
            root(name)
        if node.op_type in HOMOGENEOUS or node.op_type == "Add":
            for name in names[1:]:
                parent[root(name)] = root(names[0])
    return {name: root(name) for name in list(parent)}


def _divisors(
    graph: Graph,
    group: Mapping[str, str],
    statistics: Mapping[str, TensorStatistics],
    strength: float,
) -> dict[str, Float64]:
    """Return s by group, (C,) in (0, 1], for the groups that may be rescaled.

    s_i <= 1 makes channels larger only, never beyond the largest of their tensor: a Clip's upper
    bound is not reached by a channel that had not reached it.
    """
    fixed = _fixed_groups(graph, group)
    shares: dict[str, Float64] = {}
    for name, known in statistics.items():
        if group.get(name, name) in fixed or name not in group:
            continue
        magnitude = np.maximum(np.abs(known.channel_minimum), np.abs(known.channel_maximum))
        if len(magnitude) != graph.shapes[name][1] or not magnitude.any():
            fixed.add(group[name])
            continue
        share = (magnitude / magnitude.max()).astype(np.float64)
        shares[group[name]] = np.maximum(shares.get(group[name], LEAST), share)
    return {name: share**strength for name, share in shares.items() if name not in fixed}


def _fixed_groups(graph: Graph, group: Mapping[str, str]) -> set[str]:
    """Return the groups with a tensor whose scale somebody else relies on."""
    fixed = {group[name] for name in {graph.input.name, *graph.outputs} if name in group}
    for node in graph.model.graph.node:
        names = [*activations(graph, node), *node.output]
        if node.op_type == "Conv":
            free = all(name in graph.constants for name in node.input[1:] if name)
        elif node.op_type == "Clip":
            free = _clips_at_zero(graph, node)
        else:
            free = node.op_type in HOMOGENEOUS or (node.op_type == "Add" and len(names) == 3)
        if not free:
            fixed |= {group[name] for name in names}
    return fixed


def _clips_at_zero(graph: Graph, node: onnx.NodeProto) -> bool:
    """Say whether a Clip's lower bound is 0, or absent: else a rescaled channel changes."""
    low = graph.constants.get(node.input[1]) if len(node.input) > 1 and node.input[1] else None
    return low is not None and float(low) == 0.0
