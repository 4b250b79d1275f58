"""Which tensors share a scale.

What a max-pooling or a resize gives lies between values of its input; the parts of a Concat become
one tensor. Each such group has one scale, from the range of one of its tensors, its root: of a
Concat's result, which is as wide as the widest part, or else of what the first of a chain takes.
"""

import onnx

from deploy.graph.activations import keeps_scale
from deploy.graph.graph import Graph
from deploy.graph.profile import Profile
from deploy.quantize.obstacles import obstacle


def scale_root(graph: Graph, name: str, profile: Profile) -> str:
    """Return the tensor whose range gives a tensor's scale, be it computed in 8 bits or not.

    Of the targets' roots all are also roots for the default one, or tensors that it quantizes by
    themselves. A tensor that is part of several Concats takes the scale of the first; one that
    others look at besides what carries it on to a Concat keeps its own, so that none of its values
    is clipped for them.
    """
    while (before := graph.producers.get(name)) is not None and _carries(graph, before, profile):
        name = before.input[0]
    below: str | None = name
    while below is not None:
        if (concat := _concat_of(graph, below)) is not None:
            return scale_root(graph, concat.output[0], profile)
        takers = graph.consumers[below]
        alone = len(takers) == 1 and below not in graph.outputs
        below = takers[0].output[0] if alone and _carries(graph, takers[0], profile) else None
    return name


def odd_part(graph: Graph, concat: onnx.NodeProto, profile: Profile) -> str | None:
    """Return a part of a Concat that cannot have the scale of its result, or None."""
    root = scale_root(graph, concat.output[0], profile)
    others = (name for name in concat.input if scale_root(graph, name, profile) != root)
    return next(others, None)


def _carries(graph: Graph, node: onnx.NodeProto, profile: Profile) -> bool:
    """Say whether a node's result has the scale of its input."""
    averages = node.op_type == "AveragePool" and profile.same_scale_average
    return (keeps_scale(node) or averages) and not obstacle(graph, node)


def _concat_of(graph: Graph, name: str) -> onnx.NodeProto | None:
    """Return the first Concat that takes a tensor and might compute in 8 bits, or None."""
    takers = (n for n in graph.consumers[name] if n.op_type == "Concat" and not obstacle(graph, n))
    return next(takers, None)
