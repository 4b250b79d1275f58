"""Opening an ONNX file in the runtime of one's choice."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from deploy.errors import DeployError
from deploy.graph.half import emulate_half, has_half
from deploy.graph.integers import is_quantized
from deploy.graph.reading import read_graph
from deploy.runtimes import (
    litert,
    ncnn,
    onnxruntime,
    onnxruntime_arm,
    openvino,
    qnn,
    rockchip,
    sophgo,
)
from deploy.runtimes.runner import Backend, Runner, Runtime

BACKENDS: Mapping[Runtime, Backend] = MappingProxyType(
    {
        room.BACKEND.runtime: room.BACKEND
        for room in (
            *(onnxruntime, onnxruntime_arm, openvino, qnn),
            *(ncnn, litert, sophgo, rockchip),
        )
    }
)


def find_backend(runtime: Runtime, soc: str | None = None) -> Backend:
    """Return a runtime that is installed, for a chip if it emulates some.

    Raises:
        DeployError: it is not installed, or knows no such chip.
    """
    backend = BACKENDS[runtime]
    if soc is not None:
        if backend.on is None:
            raise DeployError(f"{runtime} runs on this processor: leave out the chip {soc!r}")
        backend = backend.on(soc)
    backend.require()
    return backend


def open_graph(
    path: Path,
    backend: Backend = onnxruntime.BACKEND,
    threads: int | None = None,
    *,
    timed: bool = True,
) -> Runner:
    """Return a runner for an ONNX file; one in half precision is emulated, and timed as it is.

    The emulation is onnxruntime's, whatever the runtime: OpenVINO on a CPU takes halves for floats.
    An emulated chip has halves of its own, or none.

    Args:
        path: the file.
        backend: what runs it.
        threads: by default one for each processor that this process may use.
        timed: whether its latency will be taken: else the emulation stands alone.

    Raises:
        DeployError: the runtime is not installed.
        GraphError: it cannot load the graph, or that is not one image in, logits out.
    """
    model = read_graph(path)
    if backend.soc is not None:
        return backend.open(path, threads, True)
    if has_half(model):
        emulated = onnxruntime.OnnxRunner(emulate_half(model), threads)
        emulated.timed = backend.open(path, threads, True) if timed else None
        return emulated
    runner = backend.open(path, threads, True)
    if is_quantized(model) and backend.exact_options():
        runner.default = backend.open(path, threads, False)
        runner.timed = None if backend.exact_in_8_bits else runner.default
    return runner
