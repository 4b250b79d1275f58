"""ONNX graphs in onnxruntime on an ARM core, emulated: its own aarch64 build, its own kernels.

The emulator (``deploy toolchain install arm``) executes the instructions that a core has, so that
the library chooses that core's kernels and integers are the core's; its time is not.
"""

from pathlib import Path

import numpy as np
import onnx

from deploy.calibration.preprocess import Float32Array
from deploy.graph.graph import Graph
from deploy.runtimes.onnxruntime import describe
from deploy.runtimes.remote import run_in
from deploy.runtimes.runner import (
    Backend,
    Execution,
    Runner,
    Runtime,
    cannot,
    check_signature,
)
from deploy.runtimes.sessions import disabled_for, loaded
from deploy.runtimes.worker import Worker, WorkerError, answering
from deploy.store.environment import default_threads
from deploy.toolchains.arm import DEFAULT_CORE, Core, find_core, python_on, require_arm

PROGRAM = Path(__file__).with_name("onnxruntime_worker.py")
LOAD_SECONDS, RUN_SECONDS = 1800.0, 3600.0


class ArmRunner:
    """An ONNX graph in onnxruntime on an emulated ARM core.

    Args:
        path: the graph's file.
        core: which.
        threads: by default one for each processor that this process may use.

    Raises:
        DeployError: the toolchain or the emulator is not installed.
        GraphError: onnxruntime cannot load the graph, or it is not one image in, logits out.
    """

    def __init__(self, path: Path, core: Core, threads: int | None = None) -> None:
        self.timed: Runner | None = None
        self.default: Runner | None = None
        self.name = str(path)
        command = answering(python_on(core, require_arm()), PROGRAM)
        self._worker = Worker(command, f"onnxruntime on {core.name}")
        self._optimized = self._worker.folder / "optimized.onnx"
        try:
            ports = self._worker.ask(
                LOAD_SECONDS,
                do="open",
                model=str(path.resolve()),
                threads=threads or default_threads(),
                optimized=str(self._optimized),
                disabled=disabled_for(loaded(path)),
            )
            types = [kind == "tensor(float)" for _, kind, _ in ports["inputs"]]
            check_signature(self.name, types, [shape for _, _, shape in ports["outputs"]])
        except WorkerError as error:
            raise cannot("load", self._worker.name, self.name, error) from None
        except BaseException:
            self._worker.close()
            raise

    def __call__(self, image: Float32Array) -> Float32Array:
        """Run the graph on one image."""
        logits = run_in(self._worker, self.name, RUN_SECONDS, image)[0]
        return np.asarray(logits, dtype=np.float32)

    def execution(self) -> Execution:
        """Return what computes in integers, of the graph as onnxruntime runs it on that core."""
        return describe(Graph(onnx.load(self._optimized, load_external_data=False)))


def on(name: str) -> Backend:
    """Return the backend of a core; raises DeployError if none of that name is known."""
    core = find_core(name)
    # No kernel of ARM's saturates (tests/runtimes/test_onnxruntime_arm.py).
    return Backend(
        runtime=Runtime.ONNXRUNTIME_ARM,
        open=lambda path, threads, _exact: ArmRunner(path, core, threads),
        require=require_arm,
        takes_others=False,
        soc=name,
        on=on,
    )


BACKEND = on(DEFAULT_CORE)
