"""Names for tensors and nodes that a stage adds to a graph, whatever names are there."""

from collections.abc import Iterator
from itertools import count

import onnx


class Names:
    """Hands out names that nothing in a graph has.

    The same wish for the same purpose gets the same name, so that it need not be kept.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.taken = set(_names(model.graph))
        self.given: dict[tuple[str, str], str] = {}

    def get(self, wished: str, purpose: str = "") -> str:
        """Return the name wished for where it is free, else one with a number behind it."""
        key = purpose, wished
        if key not in self.given:
            numbered = (f"{wished}_{number}" for number in count(1))
            free = (
                wished
                if wished not in self.taken
                else next(name for name in numbered if name not in self.taken)
            )
            self.given[key] = free
            self.taken.add(free)
        return self.given[key]


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield every name of a tensor or node, in subgraphs as well."""
    yield from (value.name for value in [*graph.input, *graph.output, *graph.value_info])
    yield from (tensor.name for tensor in graph.initializer)
    yield from (sparse.values.name for sparse in graph.sparse_initializer)
    for node in graph.node:
        yield from (node.name, *node.input, *node.output)
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from _names(inner)
