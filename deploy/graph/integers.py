"""Operators that take and give integers, and where their scales stand."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import onnx

from deploy.graph.qdq import DEQUANTIZE, QUANTIZE

Triple = tuple[int, int, int]  # places of a tensor, its scale and its zero point among the inputs


@dataclass(frozen=True, kw_only=True)
class Form:
    """What stands where among the inputs of an operator that takes and gives integers."""

    data: tuple[Triple, ...]
    result: tuple[int, int]  # scale, zero point
    weight: Triple | None = None
    bias: int | None = None
    stands_for: str  # the float operator


# ONNX, QLinearConv and QLinearMatMul; onnxruntime, "Contrib Operators", com.microsoft.
ONE, TWO = ((0, 1, 2),), ((0, 1, 2), (3, 4, 5))


FORMS: Mapping[str, Form] = MappingProxyType(
    {
        "QLinearConv": Form(data=ONE, weight=(3, 4, 5), result=(6, 7), bias=8, stands_for="Conv"),
        "QGemm": Form(data=ONE, weight=(3, 4, 5), result=(7, 8), bias=6, stands_for="Gemm"),
        "QLinearMatMul": Form(data=TWO, result=(6, 7), stands_for="MatMul"),
        "QLinearAdd": Form(data=TWO, result=(6, 7), stands_for="Add"),
        "QLinearMul": Form(data=TWO, result=(6, 7), stands_for="Mul"),
        "QLinearAveragePool": Form(data=ONE, result=(3, 4), stands_for="AveragePool"),
        "QLinearGlobalAveragePool": Form(data=ONE, result=(3, 4), stands_for="GlobalAveragePool"),
        "QLinearLeakyRelu": Form(data=ONE, result=(3, 4), stands_for="LeakyRelu"),
        "QLinearSigmoid": Form(data=ONE, result=(3, 4), stands_for="Sigmoid"),
        "QLinearSoftmax": Form(data=ONE, result=(3, 4), stands_for="Softmax"),
    }
)


DYNAMIC = {"ConvInteger": "Conv", "MatMulInteger": "MatMul"}  # scales found while they run


def is_quantized(model: onnx.ModelProto) -> bool:
    """Say whether any node of a graph quantizes, dequantizes, or computes in 8 bits."""
    operators = {QUANTIZE, DEQUANTIZE, "DynamicQuantizeLinear", *FORMS, *DYNAMIC}
    return any(node.op_type in operators for node in model.graph.node)


def find_form(node: onnx.NodeProto) -> Form | None:
    """Return what stands where among a node's inputs, or None if it takes no quantized tensors."""
    if node.op_type == "QLinearConcat":
        data = tuple((i, i + 1, i + 2) for i in range(2, len(node.input) - 2, 3))
        return Form(data=data, result=(0, 1), stands_for="Concat")
    return FORMS.get(node.op_type)
