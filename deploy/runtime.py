"""What runs a network: torch or onnxruntime, behind one call from image to logits."""

import os
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from calibration.observe import session_options
from calibration.preprocess import Float32Array
from deploy.emulation import emulate_half, has_half
from deploy.errors import GraphError
from deploy.graph import read_graph

INPUT_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class Runner(Protocol):
    """A network that is ready to run.

    ``timed`` is what its latency is taken from where that is another one than gives the logits.
    """

    timed: "Runner | None"

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
        self.module = module.eval()
        self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, image: Float32Array) -> Float32Array:
        """Run the module on one image."""
        with torch.inference_mode():
            logits: Float32Array = self.module(torch.from_numpy(image))[0].contiguous().numpy()
        return logits


class OnnxRunner:
    """An ONNX graph in onnxruntime on the CPU.

    Raises:
        GraphError: onnxruntime cannot load the graph, or it is not one image in, logits out.
    """

    def __init__(self, model: onnx.ModelProto | Path, threads: int | None = None) -> None:
        self.timed: Runner | None = None
        self.name = str(model) if isinstance(model, Path) else "the graph"
        options = session_options(threads or default_threads())
        source = str(model) if isinstance(model, Path) else model.SerializeToString()
        try:
            self.session = onnxruntime.InferenceSession(
                source, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's exceptions share no public base class
            reason = " ".join(str(error).split())[:200]
            raise GraphError(f"onnxruntime cannot load {self.name}: {reason}") from None
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        if len(inputs) != 1 or inputs[0].type not in INPUT_TYPES:
            raise GraphError(f"{self.name} does not take one float image: it cannot be evaluated")
        if len(outputs[0].shape) != 4:
            raise GraphError(
                f"{self.name} gives {outputs[0].name} of shape {outputs[0].shape}: logits "
                "(1, classes, h, w) are expected"
            )
        self.input_name, self.output_name = inputs[0].name, outputs[0].name
        self.input_type = INPUT_TYPES[inputs[0].type]

    def __call__(self, image: Float32Array) -> Float32Array:
        """Run the graph on one image."""
        feed = {self.input_name: image.astype(self.input_type, copy=False)}
        logits = self.session.run([self.output_name], feed)[0][0]
        return np.asarray(logits, dtype=np.float32)


def open_graph(path: Path) -> OnnxRunner:
    """Return a runner for an ONNX file; one in half precision is emulated, and timed as it is.

    Raises:
        GraphError: as :class:`OnnxRunner`.
    """
    model = read_graph(path)
    if not has_half(model):
        return OnnxRunner(path)
    runner = OnnxRunner(emulate_half(model))
    runner.timed = OnnxRunner(path)
    return runner
