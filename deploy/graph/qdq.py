"""Reading a QDQ graph: which tensors are quantized, and how."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from deploy.errors import GraphError
from deploy.graph.graph import Graph, with_node_names

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
INTEGER_OPERATORS = ("QLinearConv", "ConvInteger", "QLinearMatMul", "MatMulInteger")


@dataclass(frozen=True, kw_only=True)
class Affine:
    """What a QuantizeLinear or DequantizeLinear computes: x ≈ (q - zero_point) * scale."""

    node: str
    scale: NDArray[np.float64]  # () or (channels,)
    zero_point: NDArray[np.int64]
    dtype: np.dtype[Any]  # of q, an integer
    axis: int  # of the channels

    @property
    def per_tensor(self) -> bool:
        """Whether there is one scale for all."""
        return self.scale.size == 1

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest value that q can stand for; of one scale for all."""
        limits = np.iinfo(self.dtype)
        scale, zero_point = self.scale.item(), self.zero_point.item()
        return (int(limits.min) - zero_point) * scale, (int(limits.max) - zero_point) * scale

    def does_clip(self, low: float, high: float) -> bool:
        """Say whether q is the same with or without a Clip to low … high before it; of one scale.

        So it is if both bounds round to the ends of q's range, or lie beyond (onnxruntime,
        qdq_util.cc, IsClipMadeRedundantByQ).
        """
        limits = np.iinfo(self.dtype)
        first, last = (
            np.rint(bound / self.scale.item()) + self.zero_point.item() for bound in (low, high)
        )
        return bool(first <= limits.min and last >= limits.max)

    def same_as(self, other: "Affine") -> bool:
        """Say whether the other one has equal parameters."""
        return (
            self.dtype == other.dtype
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
        )


@dataclass(frozen=True)
class QdqGraph(Graph):
    """A graph between whose floats stand QuantizeLinear and DequantizeLinear."""

    @classmethod
    def of(cls, model: onnx.ModelProto) -> "QdqGraph":
        """Index a copy of ``model`` whose nodes are all named and whose constants are initializers.

        Raises:
            GraphError: the graph has no convolution, or holds integer operators.
        """
        ops = {node.op_type for node in model.graph.node}
        if found := sorted(ops.intersection(INTEGER_OPERATORS)):
            raise GraphError(
                f"the graph holds {found[0]}: it is made for one runtime; quantize the float graph "
                "anew in QDQ format"
            )
        if "Conv" not in ops:
            raise GraphError("the graph has no convolution: there is nothing to check")
        return cls(with_initializers(with_node_names(model)))

    def dequantized(self, name: str) -> Affine | None:
        """Return how a tensor was dequantized, or None if it is float."""
        node = self.made_by(name, DEQUANTIZE)
        return node and self.affine(node)

    def quantized(self, name: str) -> Affine | None:
        """Return how the only node that takes a tensor quantizes it, or None."""
        node = self.only_consumer(name, QUANTIZE)
        return node and self.affine(node)

    def before(self, name: str) -> str:
        """Return the float tensor from which a dequantized one comes, or the tensor itself."""
        node = self.made_by(name, DEQUANTIZE)
        if node is None:
            return name
        quantizer = self.made_by(node.input[0], QUANTIZE)
        return name if quantizer is None else str(quantizer.input[0])

    def affine(self, node: onnx.NodeProto) -> Affine:
        """Return the parameters of a QuantizeLinear or DequantizeLinear.

        Raises:
            GraphError: its scale or zero point is no constant.
        """
        has_zero_point = len(node.input) > 2 and bool(node.input[2])
        names = list(node.input[1:3] if has_zero_point else node.input[1:2])
        if missing := [name for name in names if name not in self.constants]:
            raise GraphError(f"{node.name}: {missing[0]} is no constant: it cannot be checked")
        scale = self.constants[names[0]].astype(np.float64)
        if has_zero_point:
            zero_point = self.constants[names[1]]
            dtype = zero_point.dtype
        else:
            dtype = self._default_type(node)
            zero_point = np.zeros(scale.shape, dtype)
        if not np.issubdtype(dtype, np.integer):
            raise GraphError(f"{node.name} quantizes to {dtype}: only integers can be checked")
        return Affine(
            node=node.name,
            scale=scale,
            zero_point=zero_point.astype(np.int64),
            dtype=dtype,
            axis=next((a.i for a in node.attribute if a.name == "axis"), 1),
        )

    def integers(self, name: str) -> NDArray[np.generic] | None:
        """Return q of a constant that is stored in integers and dequantized, or None."""
        node = self.made_by(name, DEQUANTIZE)
        return None if node is None else self.constants.get(node.input[0])

    def _default_type(self, node: onnx.NodeProto) -> np.dtype[Any]:
        """Return the type of q where there is no zero point to tell it."""
        if node.op_type == DEQUANTIZE:
            source = node.input[0]
            if source in self.constants:
                return self.constants[source].dtype
            quantizer = self.made_by(source, QUANTIZE)
            return np.dtype(np.uint8) if quantizer is None else self.affine(quantizer).dtype
        given = next((a.i for a in node.attribute if a.name == "output_dtype"), 0)
        return np.dtype(helper.tensor_dtype_to_np_dtype(given or TensorProto.UINT8))

    @property
    def has_fixed_shape(self) -> bool:
        """Whether the size of every input is known."""
        inputs = [v for v in self.model.graph.input if v.name not in self.constants]
        dims = [d.dim_value for v in inputs for d in v.type.tensor_type.shape.dim]
        return bool(dims) and math.prod(dims) > 0


def with_initializers(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy in which what a Constant gives is an initializer."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    constants = [n for n in copy.graph.node if n.op_type == "Constant"]
    for node in constants:
        for attribute in node.attribute:
            if attribute.name == "value":
                value = numpy_helper.to_array(attribute.t)
            elif attribute.name in ("value_float", "value_int", "value_floats", "value_ints"):
                value = np.asarray(helper.get_attribute_value(attribute))
            else:
                continue
            copy.graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
            copy.graph.node.remove(node)
    return copy
