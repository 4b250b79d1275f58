"""What a rule looks at."""

from collections.abc import Iterator
from dataclasses import dataclass

import onnx

from deploy.graph.profile import Profile
from deploy.graph.qdq import DEQUANTIZE, QUANTIZE, Affine, QdqGraph

Problems = Iterator[tuple[str, str]]  # node, what is wrong with it


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A graph, the profile that it should have, and the nodes that were kept float on purpose."""

    graph: QdqGraph
    profile: Profile
    kept_float: frozenset[str]

    def nodes(self, *op_types: str) -> Iterator[onnx.NodeProto]:
        """Yield the nodes of some types that the target should compute in 8 bits."""
        for node in self.graph.model.graph.node:
            wanted = node.op_type in op_types and node.op_type not in self.profile.float_operators
            if wanted and node.name not in self.kept_float:
                yield node

    def convolutions(self) -> Iterator[tuple[onnx.NodeProto, Affine, Affine]]:
        """Yield the convolutions with a quantized input and weight, and how these are."""
        for node in self.nodes("Conv"):
            data, weight = (self.graph.dequantized(name) for name in node.input[:2])
            if data is not None and weight is not None:
                yield node, data, weight

    def activations(self) -> Iterator[tuple[onnx.NodeProto, Affine]]:
        """Yield every QuantizeLinear of a tensor that is no constant, with its parameters."""
        for node in self.graph.model.graph.node:
            if node.op_type == QUANTIZE and node.input[0] not in self.graph.constants:
                yield node, self.graph.affine(node)

    def affines(self) -> Iterator[tuple[onnx.NodeProto, Affine]]:
        """Yield how every tensor and constant is quantized, once."""
        yield from self.activations()
        for node in self.graph.model.graph.node:
            if node.op_type == DEQUANTIZE and node.input[0] in self.graph.constants:
                yield node, self.graph.affine(node)
