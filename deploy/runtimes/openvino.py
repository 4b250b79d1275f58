"""ONNX graphs in OpenVINO on the CPU."""

import importlib
import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from deploy.calibration.preprocess import Float32Array
from deploy.errors import DeployError
from deploy.runtimes.runner import (
    Backend,
    Execution,
    Runner,
    Runtime,
    by_operator,
    cannot,
    check_signature,
)
from deploy.runtimes.saturation import saturates
from deploy.store.environment import default_threads

EXACT = "LP_TRANSFORMS_MODE", "NO"  # low precision transformations: float between Q/DQ
# Layers that compute nothing, and those that convert.
PASSIVE = ("Const", "Input", "Output", "Reshape", "Parameter", "Result")
CONVERSIONS = ("Reorder", "Convert", "FakeQuantize")


@dataclass(frozen=True)
class OpenVinoLayer:
    """A layer as OpenVINO executes it."""

    name: str
    type: str
    precision: str  # of its kernel: "i8" is 8 bits, of either sign


class OpenVinoRunner:
    """An ONNX graph in OpenVINO on the CPU; what is not quantized computes in float32.

    Without that hint OpenVINO would take bfloat16 where the processor has it.

    Args:
        path: the graph's file.
        threads: by default one for each processor that this process may use.
        exact: where its 8-bit kernels saturate, what they would compute is computed in float32
            between Q/DQ; else what they do by default.

    Raises:
        DeployError: OpenVINO is not installed.
        GraphError: it cannot load the graph, or it is not one image in, logits out.
    """

    def __init__(self, path: Path, threads: int | None = None, *, exact: bool = True) -> None:
        self.timed: Runner | None = None
        self.default: Runner | None = None
        core = openvino_core()
        hints = _hints(threads or default_threads())
        if exact and openvino_saturates():
            hints |= dict([EXACT])
        try:
            self.compiled = core.compile_model(core.read_model(str(path)), "CPU", hints)
        except RuntimeError as error:
            raise cannot("load", "OpenVINO", str(path), error) from None
        types = [port.get_element_type().to_dtype() for port in self.compiled.inputs]
        shapes = [[1] * len(port.get_partial_shape()) for port in self.compiled.outputs]
        check_signature(str(path), [t in (np.float32, np.float16) for t in types], shapes)
        self.name, self.input_type = str(path), types[0]

    def __call__(self, image: Float32Array) -> Float32Array:
        """Run the graph on one image."""
        try:
            logits = self.compiled([image.astype(self.input_type, copy=False)])[0][0]
        except RuntimeError as error:
            raise cannot("run", "OpenVINO", self.name, error) from None
        return np.asarray(logits, dtype=np.float32)

    def layers(self) -> list[OpenVinoLayer]:
        """Return what is executed.

        The precision is the end of the kernel's name: a layer's "runtimePrecision" may be 8 bits
        where its kernel computes in float32.
        """
        found = []
        for op in self.compiled.get_runtime_model().get_ops():
            info = op.get_rt_info()
            kind, kernel = (info[key].astype(str) for key in ("layerType", "primitiveType"))
            precision = kernel.rsplit("_")[-1].lower()
            found.append(OpenVinoLayer(op.get_friendly_name(), kind, precision))
        return found

    def execution(self) -> Execution:
        """Return what was compiled; a Subgraph is several elementwise operators in one."""
        layers = self.layers()
        convolutions = [layer for layer in layers if layer.type == "Convolution"]
        others = (*PASSIVE, *CONVERSIONS, "Convolution")
        return Execution(
            integer_convolutions=sum(layer.precision == "i8" for layer in convolutions),
            float_convolutions=tuple(
                layer.name for layer in convolutions if layer.precision != "i8"
            ),
            float_nodes=by_operator(
                (layer.type, layer.name)
                for layer in layers
                if layer.type not in others and layer.precision.startswith(("f", "bf"))
            ),
            conversions=sum(layer.type in CONVERSIONS for layer in layers),
        )


def load_openvino() -> Any:
    """Return the module; raises DeployError if it is not installed."""
    try:
        return importlib.import_module("openvino")
    except ImportError:
        raise DeployError("OpenVINO is not installed: run 'pip install openvino'") from None


def openvino_core() -> Any:
    """Return OpenVINO's core, one for the process; raises DeployError if it is not installed.

    Its CPU plugin gives the main thread another stack for signals and frees it with the last core,
    but leaves it in use: after that the next Ctrl-C would end in a segmentation fault.
    """
    return _core(load_openvino())


@cache
def _core(library: Any) -> Any:
    return library.Core()


def _hints(threads: int) -> dict[str, Any]:
    return {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }


@cache
def openvino_saturates() -> bool:
    """Say whether OpenVINO's 8-bit kernels saturate on this processor."""
    core = openvino_core()

    def run(model: onnx.ModelProto, image: Float32Array) -> Float32Array:
        read = core.read_model(model=io.BytesIO(model.SerializeToString()))
        result = core.compile_model(read, "CPU", _hints(1))([image])[0]
        return np.asarray(result, dtype=np.float32)

    return saturates(run)


BACKEND = Backend(
    runtime=Runtime.OPENVINO,
    open=lambda path, threads, exact: OpenVinoRunner(path, threads, exact=exact),
    exact_options=lambda: "=".join(EXACT) if openvino_saturates() else None,
    exact_in_8_bits=False,
    require=load_openvino,
)
