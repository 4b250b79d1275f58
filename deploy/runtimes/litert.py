"""ONNX graphs in LiteRT, in the form that litert_model.py gives them: here, or on an ARM core.

The library runs in a process of its own (worker.py, litert_worker.py): a network that it does not
take may end the process.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from deploy.calibration.preprocess import Float32Array
from deploy.graph.reading import read_graph
from deploy.runtimes.litert_files import file_of, require
from deploy.runtimes.litert_model import translate
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

PROGRAM = Path(__file__).with_name("litert_worker.py")
LOAD_SECONDS, RUN_SECONDS = 600.0, 3600.0
CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")


class LiteRtRunner:
    """An ONNX graph in LiteRT, float in and out; what is not quantized computes in float32.

    Args:
        path: the graph's file.
        threads: by default one for each processor that this process may use.
        core: of ARM's, emulated; None: this processor.

    Raises:
        DeployError: LiteRT is not installed, or of a version that is not known.
        GraphError: it does not take the graph, or that is not one image in, logits out.
    """

    def __init__(self, path: Path, threads: int | None = None, *, core: Core | None = None) -> None:
        self.timed: Runner | None = None
        self.default: Runner | None = None
        self.name = str(path)
        content = file_of(translate(read_graph(path)))
        check_signature(self.name, [True], [[1] * 4])  # the translation takes no other
        name = "LiteRT" if core is None else f"LiteRT on {core.name}"
        self._worker = Worker(answering(_python(core), PROGRAM), name)
        file = self._worker.folder / "model.tflite"
        file.write_bytes(content)
        try:
            self.operators = self._worker.ask(
                LOAD_SECONDS, do="open", model=str(file), threads=threads or default_threads()
            )["operators"]
        except WorkerError as error:
            raise cannot("load", name, self.name, error) from None
        except BaseException:
            self._worker.close()
            raise

    def __call__(self, image: Float32Array) -> Float32Array:
        """Run the network on one image."""
        given = np.ascontiguousarray(image.transpose(0, 2, 3, 1))
        logits = run_in(self._worker, self.name, RUN_SECONDS, given)[0].transpose(2, 0, 1)
        return np.ascontiguousarray(logits, dtype=np.float32)

    def execution(self) -> Execution:
        """Return what computes in 8 bits: LiteRT's operators whose image, weight and result are."""
        convolutions = [each for each in self.operators if each["type"] in CONVOLUTIONS]
        in_float = [each["name"] for each in convolutions if not _is_integer(each)]
        others = [
            (each["type"], each["name"])
            for each in self.operators
            if each["type"] not in (*CONVOLUTIONS, *CONVERSIONS) and each["output"] == "float32"
        ]
        return Execution(
            integer_convolutions=len(convolutions) - len(in_float),
            float_convolutions=tuple(in_float),
            float_nodes=by_operator(others),
            conversions=sum(each["type"] in CONVERSIONS for each in self.operators),
        )


def _is_integer(operator: dict[str, object]) -> bool:
    inputs = operator["inputs"]
    assert isinstance(inputs, list)
    return {*inputs[:2], operator["output"]} == {"int8"}


def _python(core: Core | None) -> list[str]:
    """Return the command of the Python that has LiteRT; raises DeployError if there is none."""
    return [sys.executable, "-P"] if core is None else python_on(core, require_arm())


def on(name: str) -> Backend:
    """Return LiteRT's backend on an ARM core; raises DeployError if none of it is known."""
    core = find_core(name)

    def require_both() -> None:
        require()  # it has the schema by which files are written
        require_arm()

    return replace(
        BACKEND,
        open=lambda path, threads, _exact: LiteRtRunner(path, threads, core=core),
        require=require_both,
        soc=name,
    )


# No kernel of its saturates (tests/runtimes/test_litert.py).
BACKEND = Backend(
    runtime=Runtime.LITERT,
    open=lambda path, threads, _exact: LiteRtRunner(path, threads),
    require=require,
    takes_others=False,
    on=on,
)
