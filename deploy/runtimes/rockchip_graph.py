"""QDQ graphs as rknn-toolkit2 imports them, so that it finds our integers again.

Its import takes from a scale s what 8 bits can stand for, -128 s … 127 s, and makes of it symmetric
ranges of weights, and of activations whose zero point is the middle: |x| ≤ 128 s on 127 steps, a
scale of 128/127 s. Weights are rounded again to that coarser grid, which costs 4 to 6 dB. So such
scales are divided by it beforehand, and weights multiplied: for |q| ≤ 126 rounding twice gives q.
(rknn-toolkit2 2.5.0, seen in what its simulator feeds to onnxruntime.)
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from deploy.graph.qdq import DEQUANTIZE, QUANTIZE, QdqGraph

COARSER = 128 / 127
WEIGHT_MAX = 126  # round(126 * 128/127) = 127, the largest of int8


def regridded(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a QDQ graph of which rknn-toolkit2's import makes what ``model`` means.

    Weights of ±127 become ±126; the graphs for this target have none.
    """
    work = _Regridding(QdqGraph.of(model))
    for node in work.graph.model.graph.node:
        if node.op_type == DEQUANTIZE and node.input[0] in work.graph.constants:
            work.weight(node)
        elif node.op_type in (QUANTIZE, DEQUANTIZE):
            work.activation(node)
    return work.graph.model


@dataclass
class _Regridding:
    """The work on one graph, a copy; what nodes share is copied, not changed."""

    graph: QdqGraph

    def weight(self, node: onnx.NodeProto) -> None:
        """Put a weight of 8 bits, zero point 0, onto the finer grid; a bias stays."""
        q = self.graph.constants[node.input[0]]
        if q.dtype != np.int8 or q.ndim < 2 or self.graph.affine(node).zero_point.any():
            return
        finer = np.rint(q.astype(np.float64) * COARSER).clip(-127, 127).astype(np.int8)
        node.input[0] = self.add(f"{node.name}.regridded", finer)
        self.scale(node)

    def activation(self, node: onnx.NodeProto) -> None:
        """Divide the scale where the zero point is the middle."""
        affine = self.graph.affine(node)
        middle = (np.iinfo(affine.dtype).min + np.iinfo(affine.dtype).max + 1) // 2
        if affine.per_tensor and affine.zero_point.item() == middle:
            self.scale(node)

    def scale(self, node: onnx.NodeProto) -> None:
        scale = self.graph.constants[node.input[1]].astype(np.float64) / COARSER
        node.input[1] = self.add(f"{node.name}.scale_regridded", scale.astype(np.float32))

    def add(self, name: str, value: NDArray[np.generic]) -> str:
        self.graph.model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name


def doubles(given: tuple[int, ...], made: tuple[int, ...]) -> bool:
    """Say whether a Resize has exactly twice the steps between corners: others go to the CPU.

    On all four chips, by the compiler's table of layers; corners lie on corners.
    """
    is_known = 0 < len(given) == len(made)
    return is_known and all(b - 1 == 2 * (a - 1) for a, b in zip(given, made, strict=True))


def layers(log: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield (operator, type of data, what computes it, name) of each layer in the compiler's log.

    It is its "Network Layer Information Table".
    """
    rules = 0  # lines of dashes since the table's head: one below it, one at its end
    is_table = False
    for line in log.splitlines():
        words = line.partition("] ")[2].split()
        if words[:3] == ["ID", "OpType", "DataType"]:
            is_table = True
        elif is_table and words and set(words[0]) == {"-"}:
            rules += 1
            if rules > 1:
                return
        elif is_table and len(words) >= 5 and words[3] in ("NPU", "CPU"):
            yield words[1], words[2], words[3], words[-1].partition(":")[2]
