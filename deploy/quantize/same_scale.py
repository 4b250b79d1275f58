"""Q/DQ of one scale and zero point around a node, and between the nodes that take its place."""

from collections.abc import Sequence

import onnx
from onnx import helper

from deploy.graph.graph import Graph
from deploy.graph.names import Names


def same_quantization(graph: Graph, node: onnx.NodeProto) -> list[str] | None:
    """Return the scale and zero point that stand before a node and, alone, behind it.

    None if they differ, or one of them is not there.
    """
    before = graph.made_by(node.input[0], "DequantizeLinear")
    after = graph.only_consumer(node.output[0], "QuantizeLinear")
    if before is None or after is None or before.input[1:] != after.input[1:]:
        return None
    return list(before.input[1:])


def requantize(
    source: str, stem: str, parameters: Sequence[str], names: Names
) -> tuple[onnx.NodeProto, onnx.NodeProto]:
    """Return Q/DQ of a tensor; the second's result is it again.

    Args:
        source: the tensor.
        stem: of the names.
        parameters: scale and zero point.
        names: of the graph.
    """
    quantized, result = names.get(f"{stem}_quantized"), names.get(f"{stem}_dequantized")
    quantize, dequantize = (
        helper.make_node(
            operator, [given, *parameters], [made], name=names.get(f"{made}/{operator}")
        )
        for operator, given, made in (
            ("QuantizeLinear", source, quantized),
            ("DequantizeLinear", quantized, result),
        )
    )
    return quantize, dequantize
