"""ONNX graphs in ncnn, in the form that ncnn_model.py gives them: here, or on an emulated ARM core.

The library runs in a process of its own (worker.py, ncnn_worker.py): a network that it does not
take may end the process.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from deploy.calibration.preprocess import Float32Array
from deploy.graph.reading import read_graph
from deploy.runtimes.ncnn_model import translate
from deploy.runtimes.packages import require_package
from deploy.runtimes.remote import run_in
from deploy.runtimes.runner import (
    Backend,
    Execution,
    Runner,
    Runtime,
    by_operator,
    cannot,
    check_signature,
)
from deploy.runtimes.worker import Worker, WorkerError, answering
from deploy.store.environment import default_threads
from deploy.toolchains.arm import Core, find_core, python_on, require_arm

PROGRAM = Path(__file__).with_name("ncnn_worker.py")
LOAD_SECONDS, RUN_SECONDS = 600.0, 600.0
CONVOLUTIONS = ("Convolution", "ConvolutionDepthWise")
PASSIVE = ("Input", "Split")


class NcnnRunner:
    """An ONNX graph in ncnn; what is not quantized computes in float32.

    Args:
        path: the graph's file.
        threads: by default one for each processor that this process may use.
        core: of ARM's, emulated; None: this processor.

    Raises:
        DeployError: ncnn is not installed, or of a version that is not known.
        GraphError: it does not take the graph, or that is not one image in, logits out.
    """

    def __init__(self, path: Path, threads: int | None = None, *, core: Core | None = None) -> None:
        self.timed: Runner | None = None
        self.default: Runner | None = None
        self.name = str(path)
        self.model = translate(read_graph(path))
        check_signature(self.name, [True], [[1] * 4])  # the translation takes no other
        library = "ncnn" if core is None else f"ncnn on {core.name}"
        self._worker = Worker(answering(_python(core), PROGRAM), library)
        files = {"param": self.model.param.encode(), "bin": self.model.bin}
        for name, content in files.items():
            (self._worker.folder / f"model.{name}").write_bytes(content)
        try:
            self.layers = self._worker.ask(
                LOAD_SECONDS,
                do="open",
                threads=threads or default_threads(),
                **{name: str(self._worker.folder / f"model.{name}") for name in files},
            )["layers"]
        except WorkerError as error:
            raise cannot("load", library, self.name, error) from None
        except BaseException:
            self._worker.close()
            raise

    def __call__(self, image: Float32Array) -> Float32Array:
        """Run the network on one image."""
        return self.blob(image, self.model.output)

    def blob(self, image: Float32Array, name: str) -> Float32Array:
        """Return a blob of the network's (C, h, w) for an image (1, 3, H, W).

        Raises:
            GraphError: ncnn fails.
        """
        given, blobs = np.ascontiguousarray(image[0]), {"input": self.model.input, "output": name}
        found = run_in(self._worker, self.name, RUN_SECONDS, given, **blobs)
        return np.asarray(found, dtype=np.float32)

    def execution(self) -> Execution:
        """Return what computes in 8 bits, of the layers that ncnn says it has loaded.

        ncnn does not tell a layer's type of data, which it takes from the tag before the weight: so
        these are the layers whose weights were given to it in 8 bits.
        """
        integers = self.model.integer_convolutions
        in_float = [(kind, name) for kind, name in self.layers if name not in integers]
        found = len(self.layers) - len(in_float)
        return Execution(
            integer_convolutions=found,
            float_convolutions=tuple(name for kind, name in in_float if kind in CONVOLUTIONS),
            float_nodes=by_operator(
                (kind, name) for kind, name in in_float if kind not in (*CONVOLUTIONS, *PASSIVE)
            ),
            conversions=2 * found,  # each quantizes what it takes, dequantizes what it gives
        )


def require() -> None:
    """See that ncnn is there; raises DeployError if not, or if it is of another version."""
    require_package("ncnn", "1.0", "ncnn")


def _python(core: Core | None) -> list[str]:
    """Return the command of the Python that has ncnn; raises DeployError if there is none."""
    if core is not None:
        return python_on(core, require_arm())
    require()
    return [sys.executable, "-P"]


def on(name: str) -> Backend:
    """Return ncnn's backend on an ARM core; raises DeployError if none of that name is known."""
    core = find_core(name)
    return replace(
        BACKEND,
        open=lambda path, threads, _exact: NcnnRunner(path, threads, core=core),
        require=require_arm,
        soc=name,
    )


# What would saturate, the files themselves forbid.
BACKEND = Backend(
    runtime=Runtime.NCNN,
    open=lambda path, threads, _exact: NcnnRunner(path, threads),
    require=require,
    takes_others=False,
    on=on,
)
