"""ONNX graphs on Rockchip's NPUs, in the simulator of rknn-toolkit2 (``deploy toolchain``).

The compiler is given a QDQ graph (rockchip_graph.py), or a float graph, which it computes in half
precision, or quantizes by the ranges that its metadata have: those of its own calibration.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from deploy.calibration.preprocess import Float32Array
from deploy.graph.carried import carried, with_old_ir
from deploy.graph.graph import Graph, without_unused_constants
from deploy.graph.metadata import CALIBRATION_TABLE, read_metadata
from deploy.graph.reading import naming, read_graph
from deploy.runtimes.remote import run_in
from deploy.runtimes.restarted import RestartedWorker
from deploy.runtimes.rockchip_graph import layers, regridded
from deploy.runtimes.runner import (
    Backend,
    Execution,
    Runner,
    Runtime,
    by_operator,
    cannot,
    check_chip,
    check_signature,
)
from deploy.runtimes.worker import Worker, WorkerError, answering
from deploy.toolchains.install import find_interpreter

PROGRAM = Path(__file__).with_name("rockchip_worker.py")
TOOLCHAIN = "rockchip"
CHIPS = ("rk3566", "rk3568", "rk3576", "rk3588")
DEFAULT_CHIP = "rk3588"
IR_VERSION = 9
COMPILE_SECONDS, RUN_SECONDS = 3600.0, 1800.0
PASSIVE = ("InputOperator", "OutputOperator", "Reshape", "Transpose")


class RockchipRunner:
    """An ONNX graph on a chip's NPU, simulated.

    Args:
        path: the graph's file.
        chip: whose NPU.

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
            given, size = for_compiler(model), Graph(model).input_size
        check_signature(self.name, [True], [[1] * 4])
        self._worker = RestartedWorker(command(), f"rknn-toolkit2 for {chip}")
        folder = self._worker.folder
        try:
            onnx.save(given, folder / "network.onnx")
            table = read_metadata(model).get(CALIBRATION_TABLE)
            if table is not None:
                (folder / "ranges.json").write_text(table, encoding="utf-8")
            answer = self._worker.open(
                COMPILE_SECONDS,
                do="open",
                folder=str(folder),
                model="network.onnx",
                chip=chip,
                ranges=None if table is None else "ranges.json",
                size=size,
            )
        except WorkerError as error:
            self._worker.close()
            raise cannot("compile", self._worker.name, self.name, error) from None
        except BaseException:
            self._worker.close()
            raise
        self.rknn = Path(answer["rknn"])
        self.layers = list(layers(self._worker.log()))

    def __call__(self, image: Float32Array) -> Float32Array:
        """Run the graph on one image."""
        logits = run_in(self._worker, self.name, RUN_SECONDS, image)[0]
        return np.asarray(logits, dtype=np.float32)

    def execution(self) -> Execution:
        """Return what the compiler's table says of each layer: its type of data, and the CPU's."""
        integers, floats, others = 0, list[str](), list[tuple[str, str]]()
        for operator, kind, unit, name in self.layers:
            if "Conv" in operator:
                if kind == "INT8":
                    integers += 1
                else:
                    floats.append(name)
            elif operator not in PASSIVE and (kind != "INT8" or unit == "CPU"):
                others.append((f"{operator} on the CPU" if unit == "CPU" else operator, name))
        return Execution(
            integer_convolutions=integers,
            float_convolutions=tuple(floats),
            float_nodes=by_operator(others),
            conversions=0,
            footprint={"context_bytes": self.rknn.stat().st_size},
        )


def for_compiler(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph as rknn-toolkit2 takes it; raises GraphError for one of bare integers."""
    given = carried(model)
    made = regridded(model) if given.ranges else given.model
    return with_old_ir(without_unused_constants(made), IR_VERSION)


def calibrate(fp32: Path, images: Sequence[Float32Array], chip: str = DEFAULT_CHIP) -> str:
    """Return the ranges of the compiler's own calibration, JSON: {tensor: [low, high]}.

    Raises:
        DeployError: the toolchain is not installed, or its compiler fails.
    """
    worker = Worker(command(), f"rknn-toolkit2 for {chip}")
    try:
        onnx.save(for_compiler(read_graph(fp32)), worker.folder / "network.onnx")
        names = [f"{number}.npy" for number, _ in enumerate(images)]
        for name, image in zip(names, images, strict=True):
            np.save(worker.folder / name, image)
        worker.ask(
            COMPILE_SECONDS,
            do="calibrate",
            folder=str(worker.folder),
            model="network.onnx",
            chip=chip,
            images=names,
            ranges="ranges.json",
        )
        text = (worker.folder / "ranges.json").read_text(encoding="utf-8")
        return json.dumps(json.loads(text), sort_keys=True)
    finally:
        worker.close()


def command() -> list[str]:
    """Return what starts the worker; raises DeployError if the toolchain is not installed."""
    return answering([str(find_interpreter(TOOLCHAIN)), "-I"], PROGRAM)


def on(name: str) -> Backend:
    """Return the backend of a chip; raises DeployError if none of that name is known."""
    check_chip(name, CHIPS)
    return Backend(
        runtime=Runtime.ROCKCHIP,
        open=lambda path, _threads, _exact: RockchipRunner(path, name),
        require=lambda: find_interpreter(TOOLCHAIN),
        takes_others=False,
        soc=name,
        on=on,
    )


BACKEND = on(DEFAULT_CHIP)
