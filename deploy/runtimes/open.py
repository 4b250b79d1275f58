"""Opening an ONNX file in the runtime of one's choice."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from deploy.graph.half import emulate_half, has_half
from deploy.graph.integers import is_quantized
from deploy.graph.reading import read_graph
from deploy.runtimes import onnxruntime, openvino
from deploy.runtimes.runner import Backend, Runner, Runtime

BACKENDS: Mapping[Runtime, Backend] = MappingProxyType(
    {Runtime.ONNXRUNTIME: onnxruntime.BACKEND, Runtime.OPENVINO: openvino.BACKEND}
)


def open_graph(path: Path, runtime: Runtime = Runtime.ONNXRUNTIME) -> Runner:
    """Return a runner for an ONNX file; one in half precision is emulated, and timed as it is.

    The emulation is onnxruntime's, whatever the runtime: OpenVINO on a CPU takes halves for floats.

    Raises:
        DeployError: the runtime is not installed.
        GraphError: it cannot load the graph, or that is not one image in, logits out.
    """
    backend = BACKENDS[runtime]
    model = read_graph(path)
    if has_half(model):
        emulated = onnxruntime.OnnxRunner(emulate_half(model))
        emulated.timed = backend.open(path, None, True)
        return emulated
    runner = backend.open(path, None, True)
    if is_quantized(model) and backend.exact_options():
        runner.default = backend.open(path, None, False)
        runner.timed = None if backend.exact_in_8_bits else runner.default
    return runner
