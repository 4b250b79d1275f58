"""ONNX graphs on Sophgo's TPUs, in the simulators of tpu-mlir (``deploy toolchain``).

The compiler is given a float graph and, of a QDQ graph, its ranges as a calibration table: its
weights are on their integers already. What it makes runs twice: the quantized module for every
image, and for a few the chip's own file in the C-model, which is slow; how far they agree is told.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from deploy.calibration.preprocess import Float32Array
from deploy.graph.carried import Carried, carried, with_old_ir
from deploy.graph.graph import Graph
from deploy.graph.metadata import CALIBRATION_TABLE, read_metadata
from deploy.graph.reading import naming, read_graph
from deploy.runtimes.remote import run_in
from deploy.runtimes.restarted import RestartedWorker
from deploy.runtimes.runner import (
    Backend,
    Execution,
    Runner,
    Runtime,
    cannot,
    check_chip,
    check_signature,
)
from deploy.runtimes.sophgo_files import calibration_table, describe, read_profile
from deploy.runtimes.worker import Worker, WorkerError, answering
from deploy.toolchains.install import find_interpreter

PROGRAM = Path(__file__).with_name("sophgo_worker.py")
TOOLCHAIN = "sophgo"
CHIPS = ("bm1684x", "bm1688", "cv186x")
DEFAULT_CHIP = "bm1684x"
IR_VERSION = 8
COMPILE_SECONDS, RUN_SECONDS = 7200.0, 3600.0
SIMULATED = 2  # images that the chip's file runs on


class SophgoRunner:
    """An ONNX graph on a chip's TPU, simulated: QDQ as INT8, half precision as F16, float as BF16.

    Args:
        path: the graph's file.
        chip: whose TPU.

    Raises:
        DeployError: the toolchain is not installed.
        GraphError: its compiler does not take the graph, or it is not one image in, logits out.
    """

    def __init__(self, path: Path, chip: str) -> None:
        self.timed: Runner | None = None
        self.default: Runner | None = None
        self.name = str(path)
        model = read_graph(path)
        with naming(path):
            given = carried(model)
            table = read_metadata(model).get(CALIBRATION_TABLE) or _table(given)
            size = Graph(given.model).input_size
        check_signature(self.name, [True], [[1] * 4])
        self._worker = RestartedWorker(command(), f"tpu-mlir for {chip}")
        folder = self._worker.folder
        try:
            onnx.save(with_old_ir(given.model, IR_VERSION), folder / "network.onnx")
            if table is not None:
                (folder / "table").write_text(table, encoding="utf-8")
            made = self._worker.ask(
                COMPILE_SECONDS,
                do="compile",
                folder=str(folder),
                model="network.onnx",
                shape=[1, 3, *size],
                precision=precision_of(given, table),
                chip=chip,
                table=None if table is None else "table",
                device=True,
            )
            self.module, self.bmodel = Path(made["module"]), Path(made["bmodel"])
            self._worker.open(COMPILE_SECONDS, do="open", module=str(self.module))
        except WorkerError as error:
            self._worker.close()
            raise cannot("compile", self._worker.name, self.name, error) from None
        except BaseException:
            self._worker.close()
            raise
        profile = (folder / "compiler_profile_0.txt").read_text(encoding="utf-8", errors="replace")
        self._footprint, self._device = read_profile(profile)
        self._footprint["context_bytes"] = self.bmodel.stat().st_size
        self._pairs: list[tuple[Float32Array, Float32Array]] = []

    def __call__(self, image: Float32Array) -> Float32Array:
        """Run the module on one image; the first ones, but for an empty one, in the C-model too."""
        logits = self._ask("run", image)
        if len(self._pairs) < SIMULATED and image.any():
            more = {"folder": str(self._worker.folder), "bmodel": str(self.bmodel)}
            simulated = self._ask("simulate", image, **more).reshape(logits.shape)
            self._pairs.append((logits, simulated))
            self._device |= agreement(self._pairs)
        return logits

    def execution(self) -> Execution:
        """Return what of the module computes in 8 bits, and what the compiler tells of the chip.

        ``device`` grows while the first images run in the C-model.
        """
        text = self.module.read_text(encoding="utf-8", errors="replace")
        return describe(text, self._footprint, self._device)

    def _ask(self, what: str, image: Float32Array, **more: str) -> Float32Array:
        found = run_in(self._worker, self.name, RUN_SECONDS, image, what, **more)
        found = np.asarray(found, dtype=np.float32)
        return found[0] if found.ndim == 4 else found


def compile_for(model: onnx.ModelProto, chip: str) -> bytes:
    """Return the chip's file of a graph.

    Raises:
        DeployError: the toolchain is not installed, there is no such chip, or its compiler fails.
    """
    on(chip)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        onnx.save(model, path)
        runner = SophgoRunner(path, chip)  # its files go with it
        return runner.bmodel.read_bytes()


def agreement(pairs: Sequence[tuple[Float32Array, Float32Array]]) -> dict[str, float]:
    """Return how far the C-model's logits (C, h, w) agree with the module's, image by image."""
    same = [(a.argmax(0) == b.argmax(0)).mean() for a, b in pairs]
    signal = sum(float(np.square(a, dtype=np.float64).sum()) for a, _ in pairs)
    noise = sum(float(np.square(a - b, dtype=np.float64).sum()) for a, b in pairs)
    found = {"images": float(len(pairs)), "agreement": float(np.mean(same))}
    return found | ({"sqnr_db": 10 * float(np.log10(signal / noise))} if noise else {})


def precision_of(given: Carried, table: str | None) -> str:
    """Return tpu-mlir's name of the precision that a graph is compiled in."""
    if table is not None:
        return "INT8"
    return "F16" if given.was_half else "BF16"


def _table(given: Carried) -> str | None:
    return calibration_table(given) if given.ranges else None


def calibrate(fp32: Path, images: Sequence[Float32Array]) -> str:
    """Return the table of the compiler's own calibration (KL divergence, and its tuning).

    Raises:
        DeployError: the toolchain is not installed, or its compiler fails.
    """
    worker = Worker(command(), "tpu-mlir")
    try:
        model = carried(read_graph(fp32)).model
        onnx.save(with_old_ir(model, IR_VERSION), worker.folder / "network.onnx")
        folder, name = worker.folder / "images", Graph(model).input.name
        folder.mkdir()
        for number, image in enumerate(images):
            np.savez(folder / f"{number:04d}.npz", **{name: image})  # type: ignore[arg-type]
        worker.ask(
            COMPILE_SECONDS,
            do="calibrate",
            folder=str(worker.folder),
            model="network.onnx",
            shape=[1, 3, *Graph(model).input_size],
            images="images",
            count=len(images),
            table="table",
        )
        return (worker.folder / "table").read_text(encoding="utf-8")
    finally:
        worker.close()


def command() -> list[str]:
    """Return what starts the worker; raises DeployError if the toolchain is not installed."""
    return answering([str(find_interpreter(TOOLCHAIN)), "-I"], PROGRAM)


def on(name: str) -> Backend:
    """Return the backend of a chip; raises DeployError if none of that name is known."""
    check_chip(name, CHIPS)
    return Backend(
        runtime=Runtime.SOPHGO,
        open=lambda path, _threads, _exact: SophgoRunner(path, name),
        require=lambda: find_interpreter(TOOLCHAIN),
        takes_others=False,
        soc=name,
        on=on,
    )


BACKEND = on(DEFAULT_CHIP)
