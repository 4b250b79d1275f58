"""How large the tensors become that only half precision has to hold, not 8 bits."""

from collections.abc import Collection, Iterable

import numpy as np
import onnx
from onnx import TensorProto, helper

from deploy.calibration.errors import CalibrationError
from deploy.calibration.preprocess import Float32Array
from deploy.graph.activations import fused_activation
from deploy.graph.graph import Graph, inferred_values
from deploy.graph.names import Names
from deploy.runtimes.sessions import open_session
from deploy.store.memory import give_back


def find_unmeasured(graph: Graph, measured: Collection[str]) -> list[str]:
    """Return the float32 activations whose magnitude is not known and matters.

    What a Relu or Clip alone takes of a convolution or sum does not matter: beyond the range of a
    half it is infinite, and as the activation's own result, which is measured, fits, the infinity
    ends at its bound.
    """
    values = inferred_values(graph.model)
    floats = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    fused = {n.output[0] for n in graph.model.graph.node if fused_activation(graph, n) is not None}
    wanted = floats - fused - set(measured)
    return [name for name in (graph.input.name, *graph.producers) if name in wanted]


def measure_magnitudes(
    graph: Graph, tensors: Collection[str], images: Iterable[Float32Array]
) -> dict[str, float]:
    """Return the largest absolute value of each tensor over all images, one in memory at a time.

    Args:
        graph: a float graph; not changed.
        tensors: names of float32 activations, of any rank.
        images: inputs float32 (1, 3, H, W).

    Raises:
        CalibrationError: a tensor has a NaN; infinity, as of a mask, is a magnitude.
    """
    meter = MagnitudeMeter(graph, tensors)
    return largest(tensors, map(meter, images))


class MagnitudeMeter:
    """A float graph that gives the largest absolute value of each of some tensors.

    Args:
        graph: not changed.
        tensors: names of float32 activations, of any rank.
        threads: of onnxruntime; 0 takes one for each core.
    """

    def __init__(self, graph: Graph, tensors: Collection[str], threads: int = 0) -> None:
        names = Names(graph.model)
        tapped = onnx.ModelProto()
        tapped.CopyFrom(graph.model)
        del tapped.graph.output[:]
        for name in tensors:
            absolute, most = names.get(f"{name}/absolute"), names.get(f"{name}/largest")
            tapped.graph.node.append(helper.make_node("Abs", [name], [absolute]))
            tapped.graph.node.append(helper.make_node("ReduceMax", [absolute], [most], keepdims=0))
            tapped.graph.output.append(helper.make_tensor_value_info(most, TensorProto.FLOAT, []))
        self._input = graph.input.name
        self._session = open_session(tapped, threads)
        del tapped
        give_back()

    def __call__(self, image: Float32Array) -> Float32Array:
        """Return them (tensors,) for an input float32 (1, 3, H, W)."""
        return np.array(self._session.run(None, {self._input: image}), np.float32)


def largest(tensors: Collection[str], found: Iterable[Float32Array]) -> dict[str, float]:
    """Return the largest of each tensor's magnitudes (tensors,) over images, in any order.

    Raises:
        CalibrationError: one is a NaN.
    """
    most = np.zeros(len(tensors), np.float32)
    for magnitudes in found:
        most = np.maximum(most, magnitudes)  # keeps a NaN
    for name, value in zip(tensors, most, strict=True):
        if np.isnan(value):
            raise CalibrationError(f"tensor {name} has NaN: the graph cannot be converted")
    return dict(zip(tensors, most.tolist(), strict=True))
