"""What a translation to LiteRT has made so far, and which tensor is which of ONNX's."""

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from deploy.errors import GraphError
from deploy.graph.qdq import DEQUANTIZE, QUANTIZE, Affine, QdqGraph
from deploy.runtimes.litert_files import Operator, Quantization, Tensor
from deploy.runtimes.litert_windows import Pads

UINT8_SHIFT = 128  # from an int8 zero point to the uint8 one of the same values
FLOAT, INT8, UINT8 = np.dtype(np.float32), np.dtype(np.int8), np.dtype(np.uint8)


class Borders(StrEnum):
    """What a network takes and gives."""

    FLOAT = "float"
    UINT8 = "uint8"  # q of x ≈ (q - zero_point) * scale, of normalized values and of logits


@dataclass
class Tape:
    """Tensors and operators, and the index of each ONNX tensor in either form.

    ``floats`` are found by the tensor's name, ``integers`` by that of what QuantizeLinear gives.
    """

    graph: QdqGraph
    borders: Borders
    tensors: list[Tensor] = field(default_factory=list)
    operators: list[Operator] = field(default_factory=list)
    floats: dict[str, int] = field(default_factory=dict)
    integers: dict[str, int] = field(default_factory=dict)

    def begin(self) -> int:
        """Make the input."""
        name = self.graph.input.name
        if self.borders is Borders.FLOAT:
            self.floats[name] = self.tensor(name, self.shape(name), FLOAT)
            return self.floats[name]
        takers = self.graph.consumers[name]
        if not takers or any(node.op_type != QUANTIZE for node in takers):
            raise GraphError("uint8 borders: the image is not quantized before all else")
        affine = self.affine(takers[0])
        given = self.tensor(name, self.shape(name), UINT8, affine)
        for node in takers:
            self.integers[node.output[0]] = self.converted(given, node.output[0], affine)
        return given

    def end(self, name: str) -> int:
        """Make the output."""
        node = self.graph.made_by(name, DEQUANTIZE)
        if self.borders is Borders.FLOAT:
            return self.float_of(name)
        if node is None:
            raise GraphError("uint8 borders: the logits are float in this graph")
        source = self.integers[node.input[0]]
        result = self.tensor(name, self.tensors[source].shape, UINT8, self.affine(node))
        self.operators.append(Operator(name="QUANTIZE", inputs=(source,), output=result))
        return result

    def tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        affine: Affine | None = None,
        data: NDArray[Any] | None = None,
    ) -> int:
        """Append a tensor; return its index. ``affine`` is of the int8 form of it."""
        quantization = None
        if affine is not None:
            shift = UINT8_SHIFT if dtype == UINT8 else 0
            quantization = Quantization(
                scale=affine.scale.reshape(1).astype(np.float32),
                zero_point=int(affine.zero_point.item()) + shift,
            )
        self.tensors.append(
            Tensor(name=name, shape=shape, dtype=dtype, quantization=quantization, data=data)
        )
        return len(self.tensors) - 1

    def constant(
        self, name: str, data: NDArray[Any], quantization: Quantization | None = None
    ) -> int:
        """Append a constant; return the index of its values, floats where it has halves."""
        self.tensors.append(
            Tensor(
                name=name,
                shape=data.shape,
                dtype=data.dtype,
                quantization=quantization,
                data=data,
            )
        )
        index = len(self.tensors) - 1
        if data.dtype != np.float16:
            return index
        values = self.tensor(f"{name}_values", data.shape, FLOAT)
        self.operators.append(Operator(name="DEQUANTIZE", inputs=(index,), output=values))
        return values

    def affine(self, node: onnx.NodeProto) -> Affine:
        """Return how an activation is quantized: int8, one scale."""
        affine = self.graph.affine(node)
        if affine.dtype != INT8 or not affine.per_tensor:
            raise cannot(
                node, "activations in int8 with one scale: 'deploy quantize --int8 --target litert'"
            )
        return affine

    def converted(self, source: int, name: str, affine: Affine) -> int:
        """Append what quantizes a tensor; return the index of the int8 one."""
        index = self.tensor(name, self.tensors[source].shape, INT8, affine)
        self.operators.append(Operator(name="QUANTIZE", inputs=(source,), output=index))
        return index

    def float_of(self, name: str) -> int:
        """Return the index of a float tensor, which is dequantized if it must be."""
        if name not in self.floats:
            node = self.graph.producers[name]
            source = self.integers[node.input[0]]
            index = self.tensor(name, self.tensors[source].shape, FLOAT)
            self.operators.append(Operator(name="DEQUANTIZE", inputs=(source,), output=index))
            self.floats[name] = index
        return self.floats[name]

    def with_pads(self, source: int, pads: Pads, *, lowest: bool) -> int:
        """Append what pads an image by zeros, or the lowest value; return the index."""
        image = self.tensors[source]
        height, width = (n + sum(p) for n, p in zip(image.shape[1:3], pads, strict=True))
        shape = (1, height, width, image.shape[3])
        padded = replace(image, name=f"{image.name}_padded_{len(self.tensors)}", shape=shape)
        constant = np.array([(0, 0), *pads, (0, 0)], np.int32)
        inputs = [source, self.constant(f"{padded.name}_sizes", constant)]
        if lowest:
            limits = np.iinfo(INT8) if image.dtype == INT8 else np.finfo(FLOAT)
            value = np.array([limits.min], image.dtype)
            inputs.append(self.constant(f"{padded.name}_value", value, image.quantization))
        self.tensors.append(padded)
        index = len(self.tensors) - 1
        name = "PADV2" if lowest else "PAD"
        self.operators.append(Operator(name=name, inputs=tuple(inputs), output=index))
        return index

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an image, (1, H, W, C)."""
        shape = self.graph.shapes.get(name, ())
        if len(shape) != 4 or shape[0] != 1 or min(shape) < 1:
            raise GraphError(f"LiteRT: {name} is no image of a fixed size (1, C, H, W)")
        return 1, shape[2], shape[3], shape[1]


def cannot(node: onnx.NodeProto, reason: str) -> GraphError:
    """Return the error for a node that is not translated."""
    return GraphError(f"LiteRT does not take node {node.name} ({node.op_type}): {reason}")
