"""LiteRT's own quantizer (AI Edge Quantizer), and what it makes in the form of a QDQ graph.

It gets our float network, calibrates by itself and gives a ``.tflite``. Of that, every scale, zero
point and integer is put into the ONNX graph, so that it is measured like any other; translated back
it is the same file (tests/targets/test_litert.py).
"""

import contextlib
import importlib
import io
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from deploy.calibration.voc import Sample
from deploy.graph.activations import fused_activation
from deploy.graph.canonical import canonical
from deploy.graph.graph import Graph, with_node_names, with_nodes, without_unused_constants
from deploy.graph.qdq import DEQUANTIZE, QUANTIZE
from deploy.graph.reading import read_graph
from deploy.runtimes.litert_files import SIGNATURE, file_of
from deploy.runtimes.litert_model import translate
from deploy.targets.vendors import Read

DEPTHWISE = "DEPTHWISE_CONV_2D"
TYPES = {"INT8": np.int8, "INT32": np.int32}


@dataclass(frozen=True, kw_only=True)
class _Quantized:
    """A tensor of a ``.tflite``: x ≈ (q - zero_point) * scale."""

    scale: NDArray[np.float32]
    zero_point: int
    data: NDArray[Any] | None  # of a constant


def ai_edge_quantizer(fp32: Path, int8: Path, samples: Sequence[Sample], read: Read) -> None:
    """Quantize as AI Edge Quantizer's README has it: static_wi8_ai8, its own calibration."""
    model = with_node_names(canonical(read_graph(fp32)))
    made = quantize(file_of(translate(model)), Graph(model).input.name, samples, read)
    onnx.save(with_integers(model, made), int8)


def quantize(content: bytes, name: str, samples: Sequence[Sample], read: Read) -> bytes:
    """Return a float ``.tflite`` quantized; ``name`` is of its input."""
    tool = importlib.import_module("ai_edge_quantizer.quantizer")
    recipe = importlib.import_module("ai_edge_quantizer.recipe")
    images = [{name: read(sample).transpose(0, 2, 3, 1)} for sample in samples]
    with tempfile.TemporaryDirectory() as folder, _silence():
        path = Path(folder, "model.tflite")
        path.write_bytes(content)
        quantizer = tool.Quantizer(str(path), recipe.static_wi8_ai8())
        found = quantizer.quantize(quantizer.calibrate({SIGNATURE: images}))
    return bytes(found.quantized_model)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the quantizer's own progress and advice from the terminal."""
    with (
        warnings.catch_warnings(action="ignore"),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        yield


def with_integers(model: onnx.ModelProto, content: bytes) -> onnx.ModelProto:
    """Return a float graph with the scales and integers of a ``.tflite`` that was made of it.

    Args:
        model: the graph that :func:`deploy.runtimes.litert_model.translate` translated.
        content: what a quantizer made of that; names are the graph's.
    """
    graph, (tensors, convolutions) = Graph(model), _read(content)
    constants: dict[str, NDArray[Any]] = {}
    nodes: list[onnx.NodeProto] = []

    def append(kind: str, source: str, name: str, given: _Quantized, axis: int | None) -> None:
        zero = np.array(given.zero_point, np.int8 if given.data is None else given.data.dtype)
        scale = given.scale.reshape(()) if axis is None else given.scale
        zeros = zero if axis is None else np.full(scale.shape, zero)
        constants[f"{name}_scale"], constants[f"{name}_zero"] = scale, zeros
        inputs = [source, f"{name}_scale", f"{name}_zero"]
        nodes.append(helper.make_node(kind, inputs, [name], f"{name}_{kind}", axis=axis))

    def convert(source: str, name: str, result: str) -> None:
        append(QUANTIZE, source, f"{name}_quantized", tensors[name], None)
        append(DEQUANTIZE, f"{name}_quantized", result, tensors[name], None)

    image = graph.input.name
    convert(image, image, f"{image}_dequantized")
    for node in graph.model.graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [f"{n}_dequantized" if n == image else n for n in node.input]
        if node.op_type == "Conv":
            result = (fused_activation(graph, node) or node).output[0]
            del copy.input[1:]
            for part, given in zip(("weight", "bias"), convolutions[result], strict=True):
                name = f"{node.name}.{part}_of_ints"
                assert given.data is not None
                constants[f"{name}_quantized"] = given.data
                append(DEQUANTIZE, f"{name}_quantized", name, given, 0)
                copy.input.append(name)
        name = node.output[0]
        if name in tensors:
            copy.output[0] = f"{name}_float"
        nodes.append(copy)
        if name in tensors:
            convert(f"{name}_float", name, name)
    return without_unused_constants(with_nodes(model, nodes, constants))


def _read(
    content: bytes,
) -> tuple[Mapping[str, _Quantized], Mapping[str, tuple[_Quantized, _Quantized]]]:
    """Return the 8-bit activations by name, and (weight, bias) of convolutions by their results.

    Weights are (M, C, h, w), as ONNX has them.
    """
    schema: Any = importlib.import_module("ai_edge_litert.schema_py_generated")
    made = schema.ModelT.InitFromPackedBuf(content, 0)
    (graph,) = made.subgraphs
    kinds = {value: name for name, value in vars(schema.TensorType).items()}
    codes = {value: name for name, value in vars(schema.BuiltinOperator).items()}

    def values_of(buffer: Any) -> NDArray[np.uint8] | None:
        if buffer.offset > 1:  # it lies behind the tables
            return np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
        return None if buffer.data is None else np.asarray(buffer.data, np.uint8)

    def quantized(index: int) -> _Quantized | None:
        tensor = graph.tensors[index]
        dtype, given = TYPES.get(kinds[tensor.type]), tensor.quantization
        if dtype is None or given is None or given.scale is None:
            return None
        values = values_of(made.buffers[tensor.buffer])
        return _Quantized(
            scale=np.asarray(given.scale, np.float32),
            zero_point=int(given.zeroPoint[0]),
            data=None if values is None else values.view(dtype).reshape(tensor.shape),
        )

    activations, convolutions = {}, {}
    for index, tensor in enumerate(graph.tensors):
        found = quantized(index)
        if found is not None and found.data is None:
            activations[tensor.name.decode()] = found
    for operator in graph.operators:
        kind = codes[made.operatorCodes[operator.opcodeIndex].builtinCode]
        if not kind.endswith("CONV_2D"):
            continue
        weight, bias = (quantized(index) for index in operator.inputs[1:3])
        assert weight is not None
        assert bias is not None
        assert weight.data is not None
        order = (3, 0, 1, 2) if kind == DEPTHWISE else (0, 3, 1, 2)
        data = np.ascontiguousarray(weight.data.transpose(order))
        weight = _Quantized(scale=weight.scale, zero_point=0, data=data)
        name = graph.tensors[operator.outputs[0]].name.decode()
        convolutions[name] = weight, bias
    return activations, convolutions
