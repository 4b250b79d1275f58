"""A network in LiteRT's form: tensors and operators, and the ``.tflite`` file that holds them.

Source: schema.fbs of LiteRT (version 3), as the package ``ai-edge-litert`` has it.
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.runtimes.packages import require_package

SCHEMA_VERSION = 3
IDENTIFIER = b"TFL3"
SIGNATURE = "serving_default"
# Of each operator the version since which it takes what is written here: 8 bits with a scale for
# each channel, weights in half precision (LiteRT, op_version.cc).
VERSIONS: Mapping[str, int] = {
    "ADD": 2,
    "AVERAGE_POOL_2D": 2,
    "CONCATENATION": 2,
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "DEQUANTIZE": 3,
    "MAX_POOL_2D": 2,
    "PAD": 2,
    "PADV2": 2,
    "QUANTIZE": 2,
    "RELU": 2,
    "RELU6": 2,
    "RESIZE_BILINEAR": 3,
}


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """x ≈ (q - zero_point) * scale, one scale or one for each index of an axis."""

    scale: NDArray[np.float32]
    zero_point: int = 0
    axis: int = 0


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A tensor: images are (1, H, W, C)."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    quantization: Quantization | None = None
    data: NDArray[Any] | None = None  # of a constant


@dataclass(frozen=True, kw_only=True)
class Operator:
    """An operator by the schema's name, from tensors to a tensor, by their indices."""

    name: str
    inputs: tuple[int, ...]
    output: int
    options: Mapping[str, Any] = field(default_factory=dict)  # the schema's names and values


@dataclass(frozen=True, kw_only=True)
class TfLiteModel:
    """A network in LiteRT's form.

    Attributes:
        tensors, operators: in the order in which they run.
        input, output: indices of the tensors.
    """

    tensors: Sequence[Tensor]
    operators: Sequence[Operator]
    input: int
    output: int


def require() -> None:
    """See that LiteRT is there; raises DeployError if not, or if it is of another version."""
    require_package("ai-edge-litert", "2", "litert")


def file_of(model: TfLiteModel) -> bytes:
    """Return the content of ``.tflite``; raises DeployError where LiteRT is not installed."""
    require()
    import flatbuffers

    schema = importlib.import_module("ai_edge_litert.schema_py_generated")
    codes = list(dict.fromkeys(operator.name for operator in model.operators))
    buffers = [schema.BufferT()]  # the first is empty, by convention
    graph = schema.SubGraphT()
    graph.name = "main"
    graph.tensors = [_tensor(schema, tensor, buffers) for tensor in model.tensors]
    graph.operators = [_operator(schema, operator, codes) for operator in model.operators]
    graph.inputs, graph.outputs = [model.input], [model.output]
    made = schema.ModelT()
    made.version, made.description = SCHEMA_VERSION, "refinenet-deploy"
    made.operatorCodes = [_code(schema, name) for name in codes]
    made.subgraphs, made.buffers = [graph], buffers
    made.signatureDefs = [_signature(schema, model)]
    builder = flatbuffers.Builder(2**20)
    builder.Finish(made.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def _tensor(schema: Any, tensor: Tensor, buffers: list[Any]) -> Any:
    made = schema.TensorT()
    made.name, made.shape = tensor.name, list(tensor.shape)
    made.type = getattr(schema.TensorType, tensor.dtype.name.upper())
    if tensor.data is not None:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(tensor.data).tobytes(), np.uint8)
        made.buffer = len(buffers)
        buffers.append(buffer)
    if tensor.quantization is not None:
        quantization, scale = schema.QuantizationParametersT(), tensor.quantization.scale
        quantization.scale = scale.astype(np.float32)
        quantization.zeroPoint = np.full(scale.size, tensor.quantization.zero_point, np.int64)
        quantization.quantizedDimension = tensor.quantization.axis
        made.quantization = quantization
    return made


def _operator(schema: Any, operator: Operator, codes: list[str]) -> Any:
    made = schema.OperatorT()
    made.opcodeIndex = codes.index(operator.name)
    made.inputs, made.outputs = list(operator.inputs), [operator.output]
    kind = OPTIONS.get(operator.name)
    if kind is not None:
        options = getattr(schema, f"{kind}T")()
        for key, value in operator.options.items():
            assert hasattr(options, key), key
            setattr(options, key, value)
        made.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
        made.builtinOptions = options
    return made


def _code(schema: Any, name: str) -> Any:
    made = schema.OperatorCodeT()
    made.builtinCode = getattr(schema.BuiltinOperator, name)
    made.deprecatedBuiltinCode = min(made.builtinCode, 127)
    made.version = VERSIONS[name]
    return made


def _signature(schema: Any, model: TfLiteModel) -> Any:
    made = schema.SignatureDefT()
    made.signatureKey, made.subgraphIndex = SIGNATURE, 0
    for side, index in (("inputs", model.input), ("outputs", model.output)):
        port = schema.TensorMapT()
        port.name, port.tensorIndex = model.tensors[index].name, index
        setattr(made, side, [port])
    return made


# The schema's table of options of an operator.
OPTIONS: Mapping[str, str] = {
    "ADD": "AddOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "RESIZE_BILINEAR": "ResizeBilinearOptions",
}
