"""Where along the network an INT8 graph departs from the float graph: SQNR layer by layer."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from deploy.calibration.preprocess import Float32Array
from deploy.graph.graph import Graph, giving
from deploy.runtimes.sessions import open_session
from deploy.store.memory import give_back
from deploy.validate.metrics import Fidelity

LAYERS = ("Conv", "Add")  # the nodes whose results are compared
FUSED = ("Relu", "Clip")  # what computes as one with the node before it
CHUNK_BYTES = 2**30  # of activations held at a time

Pair = tuple["Layer", str, "_Scale | None"]  # a layer, its tensor in the INT8 graph, its scale


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A node of the float graph, and the tensor that holds its result, activation included."""

    node: str
    op_type: str
    tensor: str


@dataclass(frozen=True, kw_only=True)
class LayerSqnr:
    """How well a layer's result survives, with all that the layers before it have added."""

    layer: Layer
    sqnr_db: float  # 10·log10(Σ x² / Σ (x - q)²) over the images; NaN for a result of zeros


@dataclass(frozen=True, kw_only=True)
class _Scale:
    """x ≈ (q - zero_point) * scale."""

    scale: float
    zero_point: int

    def dequantize(self, q: NDArray[np.generic]) -> Float32Array:
        values: Float32Array = q.astype(np.float32)
        return (values - np.float32(self.zero_point)) * np.float32(self.scale)


def layer_sqnr(
    float_model: onnx.ModelProto,
    int8_model: onnx.ModelProto,
    images: Sequence[Float32Array],
    *,
    equalized: bool = False,
) -> list[LayerSqnr]:
    """Return the SQNR of the results of all convolutions and sums, in the graph's order.

    A result is compared where the INT8 graph rounds it to 8 bits, or as it is where it stays
    float. What the INT8 graph has no counterpart of is left out.

    Args:
        float_model: the graph that was quantized.
        int8_model: its QDQ graph, with the names that deploy/quantize/int8.py gives.
        images: inputs (1, 3, H, W); they run in onnxruntime.
        equalized: channels of the INT8 graph have a factor of their own
            (deploy/quantize/equalize.py): the one that fits best is divided out of each.
    """
    graph, int8 = Graph(float_model), Graph(int8_model)
    fidelity: dict[str, Fidelity] = {}
    layers: list[Layer] = []
    for chunk in _chunks(graph, _pairs(graph, int8)):
        layers += [layer for layer, _, _ in chunk]
        fidelity |= {layer.node: Fidelity() for layer, _, _ in chunk}
        runs = (
            _session(graph, [layer.tensor for layer, _, _ in chunk]),
            _session(int8, [tensor for _, tensor, _ in chunk]),
        )
        for image in images:
            expected, found = (_run(session, image) for session in runs)
            for layer, tensor, scale in chunk:
                x, q = expected[layer.tensor][0], found[tensor][0]
                q = q if scale is None else scale.dequantize(q)
                nothing = np.zeros(0, dtype=np.uint8)
                x, q = np.ascontiguousarray(x), np.ascontiguousarray(q)
                fidelity[layer.node].update(x, _fitted(q, x) if equalized else q, nothing, nothing)
            del expected, found, x, q
        del runs
        give_back()
    return [LayerSqnr(layer=layer, sqnr_db=fidelity[layer.node].sqnr_db) for layer in layers]


def _pairs(graph: Graph, int8: Graph) -> Iterator[Pair]:
    """Yield each layer of the float graph that the INT8 graph has, and its tensor there."""
    for node in graph.model.graph.node:
        if node.op_type not in LAYERS:
            continue
        for tensor in _results(graph, node):
            layer = Layer(node=node.name, op_type=node.op_type, tensor=tensor)
            quantized = f"{tensor}_quantized"  # as int8.py names it
            if quantized in int8.producers:
                yield layer, quantized, _scale_of(int8, quantized)
                break
            if tensor in int8.producers and tensor == _last(graph, node):
                yield layer, tensor, None
                break


def _results(graph: Graph, node: onnx.NodeProto) -> Iterator[str]:
    """Yield the tensors that hold a node's result: its own, and that of the activation after it."""
    yield node.output[0]
    if _last(graph, node) != node.output[0]:
        yield _last(graph, node)


def _last(graph: Graph, node: onnx.NodeProto) -> str:
    """Return the result of the activation that alone takes a node's output, or that output."""
    for op_type in FUSED:
        activation = graph.only_consumer(node.output[0], op_type)
        if activation is not None:
            return str(activation.output[0])
    return str(node.output[0])


def _scale_of(int8: Graph, tensor: str) -> _Scale:
    """Return the scale of an 8-bit tensor: of the QuantizeLinear behind what only moves it."""
    node = int8.producers[tensor]
    while node.op_type != "QuantizeLinear":
        node = int8.producers[node.input[0]]
    scale, zero_point = (int8.constants[name] for name in node.input[1:3])
    return _Scale(scale=float(scale), zero_point=int(zero_point))


def _chunks(graph: Graph, pairs: Iterable[Pair]) -> Iterator[list[Pair]]:
    """Yield groups of layers whose results fit CHUNK_BYTES together; at least one each."""
    chunk: list[Pair] = []
    room = CHUNK_BYTES
    for pair in pairs:
        layer, _, scale = pair
        need = (8 if scale is None else 5) * int(np.prod(graph.shapes[layer.tensor]))
        if chunk and need > room:
            yield chunk
            chunk, room = [], CHUNK_BYTES
        chunk.append(pair)
        room -= need
    if chunk:
        yield chunk


def _session(graph: Graph, tensors: Sequence[str]) -> onnxruntime.InferenceSession:
    """Return a session of the graph that gives ``tensors``."""
    with giving(graph.model, tensors) as model:
        return open_session(model, arena=False)


def _run(session: onnxruntime.InferenceSession, image: Float32Array) -> dict[str, NDArray[Any]]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: image}), strict=True))


def _fitted(values: Float32Array, reference: Float32Array) -> Float32Array:
    """Return values (C, H, W), each channel times the factor that brings it nearest."""
    # the least squares of |x - g·q|² over a channel: g = Σ x·q / Σ q²
    product = np.einsum("chw,chw->c", reference, values)
    energy = np.einsum("chw,chw->c", values, values)
    factor = np.divide(product, energy, out=np.ones_like(product), where=energy > 0)
    fitted: Float32Array = values * factor[:, None, None]
    return fitted
