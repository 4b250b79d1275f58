"""What runs a network: torch, onnxruntime or OpenVINO, behind one call from image to logits."""

import importlib
import io
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from calibration.preprocess import Float32Array
from deploy.emulation import emulate_half, has_half
from deploy.errors import DeployError, GraphError
from deploy.graph import LABELS_INSIDE, count_ops, read_graph
from deploy.saturation import saturates
from deploy.sessions import EXACT_ENTRY, kernels_saturate, open_session
from deploy.work import is_quantized

INPUT_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
# Of onnxruntime's optimized graphs.
INTEGER_CONVOLUTIONS = ("QLinearConv", "ConvInteger")
FLOAT_CONVOLUTIONS = ("Conv", "FusedConv", "NhwcFusedConv")
OPENVINO_EXACT = "LP_TRANSFORMS_MODE", "NO"  # low precision transformations: float between Q/DQ


class Runtime(StrEnum):
    """What runs ONNX graphs."""

    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"


class Runner(Protocol):
    """A network that is ready to run.

    ``timed`` is what its latency is taken from where that is another one than gives the logits.
    ``default`` has the options by which applications begin, where these compute something else on
    this processor than the graph says.
    """

    timed: "Runner | None"
    default: "Runner | None"

    def __call__(self, image: Float32Array) -> Float32Array:
        """Map a normalized image (1, 3, H, W) to logits (C, h, w), both float32."""
        ...


def default_threads() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class TorchRunner:
    """A torch module on the CPU, in the memory layout in which torch is fastest there."""

    def __init__(self, module: nn.Module) -> None:
        self.timed: Runner | None = None
        self.default: Runner | None = None
        self.module = module.eval()
        self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, image: Float32Array) -> Float32Array:
        """Run the module on one image."""
        with torch.inference_mode():
            logits: Float32Array = self.module(torch.from_numpy(image))[0].contiguous().numpy()
        return logits


class OnnxRunner:
    """An ONNX graph in onnxruntime on the CPU.

    Args:
        model: the graph, or its file.
        threads: by default one for each processor that this process may use.
        exact: 8-bit convolutions compute what the graph says; else what they do by default.

    Raises:
        GraphError: onnxruntime cannot load the graph, or it is not one image in, logits out.
    """

    def __init__(
        self, model: onnx.ModelProto | Path, threads: int | None = None, *, exact: bool = True
    ) -> None:
        self.timed: Runner | None = None
        self.default: Runner | None = None
        self.model, self.exact = model, exact
        self.name = str(model) if isinstance(model, Path) else "the graph"
        self.session = self._session(threads or default_threads())
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        _check_signature(
            self.name, [i.type in INPUT_TYPES for i in inputs], [o.shape for o in outputs]
        )
        if outputs[0].type not in INPUT_TYPES:
            raise GraphError(f"{self.name} gives {outputs[0].type}{LABELS_INSIDE}")
        self.input_name, self.output_name = inputs[0].name, outputs[0].name
        self.input_type = INPUT_TYPES[inputs[0].type]

    def _session(
        self, threads: int, write_optimized: Path | None = None
    ) -> onnxruntime.InferenceSession:
        try:
            return open_session(
                self.model, threads, exact=self.exact, write_optimized=write_optimized
            )
        except Exception as error:  # onnxruntime's exceptions share no public base class
            raise _cannot("load", "onnxruntime", self.name, error) from None

    def __call__(self, image: Float32Array) -> Float32Array:
        """Run the graph on one image."""
        feed = {self.input_name: image.astype(self.input_type, copy=False)}
        try:
            logits = self.session.run([self.output_name], feed)[0][0]
        except Exception as error:  # onnxruntime's exceptions share no public base class
            raise _cannot("run", "onnxruntime", self.name, error) from None
        return np.asarray(logits, dtype=np.float32)

    def optimized(self) -> onnx.ModelProto:
        """Return the graph that runs, after onnxruntime's optimizations, without its parameters.

        It tells them by way of a file only: the graph is loaded once more.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "optimized.onnx")
            self._session(1, path)
            return onnx.load(path, load_external_data=False)

    def executed_operators(self) -> Counter[str]:
        """Return how many nodes of each operator run, after onnxruntime's optimizations."""
        source = read_graph(self.model) if isinstance(self.model, Path) else self.model
        operators = Counter(count_ops(source))
        if not operators["DequantizeLinear"]:
            return operators  # a float graph's convolutions are fused and renamed, but stay float
        return Counter(count_ops(self.optimized()))


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
        hints = _openvino_hints(threads or default_threads())
        if exact and openvino_saturates():
            hints |= dict([OPENVINO_EXACT])
        try:
            self.compiled = core.compile_model(core.read_model(str(path)), "CPU", hints)
        except RuntimeError as error:
            raise _cannot("load", "OpenVINO", str(path), error) from None
        types = [port.get_element_type().to_dtype() for port in self.compiled.inputs]
        shapes = [[1] * len(port.get_partial_shape()) for port in self.compiled.outputs]
        _check_signature(str(path), [t in (np.float32, np.float16) for t in types], shapes)
        self.name, self.input_type = str(path), types[0]

    def __call__(self, image: Float32Array) -> Float32Array:
        """Run the graph on one image."""
        try:
            logits = self.compiled([image.astype(self.input_type, copy=False)])[0][0]
        except RuntimeError as error:
            raise _cannot("run", "OpenVINO", self.name, error) from None
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

    def executed_convolutions(self) -> Counter[str]:
        """Return how many convolutions compute in each precision."""
        return Counter(layer.precision for layer in self.layers() if layer.type == "Convolution")


def executed_convolutions(runner: Runner) -> tuple[int, int] | None:
    """Return how many convolutions compute in 8 bits, and how many there are; None for torch.

    Of a graph whose logits are emulated it is those of the graph itself.
    """
    executed = runner.timed or runner
    if isinstance(executed, OpenVinoRunner):
        precisions = executed.executed_convolutions()
        return precisions["i8"], precisions.total()
    if not isinstance(executed, OnnxRunner):
        return None
    operators = executed.executed_operators()
    in_8_bits = sum(operators[name] for name in INTEGER_CONVOLUTIONS)
    return in_8_bits, in_8_bits + sum(operators[name] for name in FLOAT_CONVOLUTIONS)


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


def _openvino_hints(threads: int) -> dict[str, Any]:
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
        result = core.compile_model(read, "CPU", _openvino_hints(1))([image])[0]
        return np.asarray(result, dtype=np.float32)

    return saturates(run)


def exact_options(runtime: Runtime) -> str | None:
    """Return what a runtime is told here so that 8-bit convolutions do not saturate, if it must."""
    if runtime is Runtime.OPENVINO:
        return "=".join(OPENVINO_EXACT) if openvino_saturates() else None
    return "=".join(EXACT_ENTRY) if kernels_saturate() else None


def open_graph(path: Path, runtime: Runtime = Runtime.ONNXRUNTIME) -> OnnxRunner | OpenVinoRunner:
    """Return a runner for an ONNX file; one in half precision is emulated, and timed as it is.

    The emulation is onnxruntime's, whatever the runtime: OpenVINO on a CPU takes halves for floats.

    Raises:
        DeployError, GraphError: as the runners.
    """
    direct = OpenVinoRunner if runtime is Runtime.OPENVINO else OnnxRunner
    model = read_graph(path)
    if has_half(model):
        emulated = OnnxRunner(emulate_half(model))
        emulated.timed = direct(path)
        return emulated
    runner = direct(path)
    if is_quantized(model) and exact_options(runtime):
        runner.default = direct(path, exact=False)
        # OpenVINO's exact kernels are no 8-bit ones: nobody would deploy them
        runner.timed = runner.default if runtime is Runtime.OPENVINO else None
    return runner


def _cannot(verb: str, runtime: str, name: str, error: Exception) -> GraphError:
    return GraphError(f"{runtime} cannot {verb} {name}: {' '.join(str(error).split())[:200]}")


def _check_signature(
    name: str, are_float: Sequence[bool], output_shapes: Sequence[Sequence[object]]
) -> None:
    """Refuse what is not one float image in, logits (1, classes, h, w) out."""
    if list(are_float) != [True]:
        raise GraphError(f"{name} does not take one float image: it cannot be evaluated")
    if len(output_shapes) != 1:
        raise GraphError(f"{name} has {len(output_shapes)} outputs: the logits alone are expected")
    if len(output_shapes[0]) != 4:
        raise GraphError(
            f"{name} gives an output of shape {list(output_shapes[0])}: logits (1, classes, h, w) "
            "are expected"
        )
