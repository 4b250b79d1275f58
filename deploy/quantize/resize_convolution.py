"""A rewrite that keeps 8-bit Resizes on an NPU that computes only some of them itself.

Bilinear interpolation is linear along the height, then along the width: each row of the result is a
mean of two given rows. With rows in place of channels that is a convolution with a 1x1 kernel.
"""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from deploy.graph.graph import Graph, attributes, with_nodes
from deploy.graph.names import Names
from deploy.quantize.direct_convolution import Arrays
from deploy.quantize.same_scale import requantize, same_quantization
from deploy.runtimes.rockchip_graph import doubles

TO_ROWS, TO_COLUMNS, BACK = (0, 2, 1, 3), (0, 3, 2, 1), (0, 2, 3, 1)


def convolve_resizes(model: onnx.ModelProto, weight_max: int) -> onnx.ModelProto:
    """Return a QDQ graph whose Resizes are convolutions, but for those that double exactly.

    That is, of 8 bits, bilinear, with corners mapped onto corners, and with
    (out - 1) / (in - 1) other than 2. Between Q/DQ of the same scale and zero point that stand
    before and behind the Resize: means of values do not leave their range. A result differs by the
    rounding between the two convolutions, and by that of the shares: at most 1 / weight_max.

    Args:
        model: the graph.
        weight_max: of a weight's |q|.
    """
    graph, names = Graph(model), Names(model)
    nodes: list[onnx.NodeProto] = []
    constants: Arrays = {}
    for node in model.graph.node:
        if _is_convolution(graph, node):
            nodes += _Convolved(graph, node, names, weight_max, constants).nodes()
        else:
            nodes.append(node)
    return with_nodes(model, nodes, constants)


def shares(given: int, made: int) -> NDArray[np.float64]:
    """Return what each of ``given`` rows has in each of ``made``, (made, given); rows sum to 1.

    Corners lie on corners (ONNX, Resize, align_corners).
    """
    places = np.arange(made) * ((given - 1) / max(made - 1, 1))
    found: NDArray[np.float64] = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(given)))
    return found


def quantize_shares(
    exact: NDArray[np.float64], weight_max: int
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return integers and a scale for each row, of which every row sums to 1.

    So a constant stays what it is; of the denominators for which that holds each row takes the one
    whose fractions are nearest.
    """
    q = np.zeros(exact.shape, np.int8)
    scales = np.ones(len(exact), np.float32)
    for row, values in enumerate(exact):
        last = int(np.flatnonzero(values)[-1])
        share = values[last]  # the other one's is 1 - share
        denominators = np.arange(weight_max, 2 * weight_max + 1)
        parts = np.rint(share * denominators)
        fits = np.maximum(parts, denominators - parts) <= weight_max
        errors = np.where(fits, np.abs(parts / denominators - share), np.inf)
        best = int(errors.argmin())
        q[row, last - 1] = denominators[best] - parts[best]
        q[row, last] = parts[best]
        scales[row] = 1 / denominators[best]
    return q, scales


def _is_convolution(graph: Graph, node: onnx.NodeProto) -> bool:
    """Say whether a node is a Resize in 8 bits that the rewrite is for."""
    if node.op_type != "Resize":
        return False
    values = attributes(node)
    if same_quantization(graph, node) is None:
        return False
    if values.get("mode") != b"linear":
        return False
    if values.get("coordinate_transformation_mode") != b"align_corners":
        return False
    given, made = graph.shapes[node.input[0]], graph.shapes[node.output[0]]
    is_plane = len(given) == 4 and given[:2] == made[:2]
    return is_plane and min(given[2:]) > 1 and not doubles(given[2:], made[2:])


class _Convolved:
    """The nodes that take a Resize's place."""

    def __init__(
        self,
        graph: Graph,
        node: onnx.NodeProto,
        names: Names,
        weight_max: int,
        constants: Arrays,
    ) -> None:
        self.node, self.names, self.weight_max = node, names, weight_max
        self.constants = constants
        self.sizes = list(
            zip(graph.shapes[node.input[0]][2:], graph.shapes[node.output[0]][2:], strict=True)
        )
        self.quantization = graph.producers[node.input[0]].input[1:]
        self.made: list[onnx.NodeProto] = []

    def nodes(self) -> list[onnx.NodeProto]:
        """Return them, with Q/DQ between."""
        (height, width), x = self.sizes, self.node.input[0]
        x = self.requantized(self.transposed(x, TO_ROWS, "rows"))
        x = self.requantized(self.convolved(x, *height, "height"))
        x = self.requantized(self.transposed(x, TO_COLUMNS, "columns"))
        x = self.requantized(self.convolved(x, *width, "width"))
        self.transposed(x, BACK, "back")
        self.made[-1].output[0] = self.node.output[0]
        return self.made

    def add(self, operator: str, inputs: list[str], what: str, **values: Any) -> str:
        result = self.names.get(f"{self.node.output[0]}_{what}")
        name = self.names.get(f"{self.node.name}/{what}")
        self.made.append(helper.make_node(operator, inputs, [result], name=name, **values))
        return result

    def transposed(self, x: str, order: tuple[int, ...], what: str) -> str:
        return self.add("Transpose", [x], what, perm=order)

    def requantized(self, x: str) -> str:
        self.made += requantize(x, x, self.quantization, self.names)
        result: str = self.made[-1].output[0]
        return result

    def convolved(self, x: str, given: int, made: int, what: str) -> str:
        q, scales = quantize_shares(shares(given, made), self.weight_max)
        parameters = [
            self.constant(f"{what}_weight", q[:, :, None, None]),
            self.constant(f"{what}_weight_scale", scales),
            self.constant(f"{what}_weight_zero_point", np.zeros(made, np.int8)),
        ]
        weight = self.add("DequantizeLinear", parameters, f"{what}_weight_dequantized", axis=0)
        return self.add("Conv", [x, weight], what)

    def constant(self, what: str, value: NDArray[np.generic]) -> str:
        name = self.names.get(f"{self.node.name}/{what}")
        self.constants[name] = value
        return name
