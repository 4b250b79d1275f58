"""ONNX graphs on Qualcomm's HTP, in the emulator that comes with onnxruntime's QNN provider.

Its integers are the chip's, its time is not. The library runs in a process of its own (worker.py,
qnn_worker.py), and what HTP does not take is an error: nothing is computed elsewhere.
"""

import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from deploy.calibration.preprocess import Float32Array
from deploy.errors import GraphError
from deploy.runtimes.packages import require_package
from deploy.runtimes.qnn_chips import CHIPS, DEFAULT_CHIP, Chip
from deploy.runtimes.remote import run_in
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

PROGRAM = Path(__file__).with_name("qnn_worker.py")
PREPARE_SECONDS = 3600.0  # of the largest network the emulator's compiler may take
RUN_SECONDS = 3600.0
# QnnTypes.h, Qnn_DataType_t.
EIGHT_BITS = (0x0308, 0x0408)  # signed and unsigned
FLOATS = (0x0216, 0x0232)  # 16 and 32 bits
CONVERSIONS = ("Quantize", "Dequantize", "Convert", "Cast")
PASSIVE = ("Transpose", "Reshape")
PLANNED = re.compile(r"\b(read_total|write_total|spill|fill)_bytes=(\d+)")
FAST_MEMORY = re.compile(r"init graph option: vtcm_size = (\d+)")
Dump = Mapping[str, Any]  # of one partition: {"graph": {"nodes", "tensors"}}


class QnnRunner:
    """An ONNX graph on the HTP of a chip, emulated.

    Args:
        path: the graph's file.
        chip: whose HTP.

    Raises:
        DeployError: the provider is not installed, or of a version that is not known.
        GraphError: HTP does not take the graph, or it is not one image in, logits out.
    """

    def __init__(self, path: Path, chip: Chip) -> None:
        self.timed: Runner | None = None
        self.default: Runner | None = None
        self.name, self.chip = str(path), chip
        self._worker, ports = _compile(path, chip)
        types = [kind == "tensor(float)" for _, kind, _ in ports["inputs"]]
        check_signature(self.name, types, [shape for _, _, shape in ports["outputs"]])

    def __call__(self, image: Float32Array) -> Float32Array:
        """Run the graph on one image."""
        logits = run_in(self._worker, self.name, RUN_SECONDS, image)[0]
        return np.asarray(logits, dtype=np.float32)

    def execution(self) -> Execution:
        """Return what the backend's own dump says of the graph, and its log of memory."""
        found = describe(_dumps(self._worker))
        sizes = [path.stat().st_size for path in _contexts(self._worker, self.chip)]
        footprint = read_footprint(self._worker.log()) | {"context_bytes": sum(sizes)}
        return replace(found, footprint=footprint)


def compile_context(model: onnx.ModelProto, chip: Chip) -> dict[str, bytes]:
    """Return a graph compiled for a chip, by file name: an ONNX file that names the binary beside.

    Raises:
        DeployError: the provider is not installed, or of a version that is not known.
        GraphError: HTP does not take the graph.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        onnx.save(model, path)
        worker, _ = _compile(path, chip)
    try:
        return {path.name: path.read_bytes() for path in _contexts(worker, chip)}
    finally:
        worker.close()


def _compile(path: Path, chip: Chip) -> tuple[Worker, dict[str, Any]]:
    """Return a worker that holds the compiled graph, and the graph's inputs and outputs."""
    require()
    worker = Worker(answering([sys.executable, "-P"], PROGRAM), f"QNN for {chip.name}")
    try:
        ports = worker.ask(
            PREPARE_SECONDS,
            do="open",
            model=str(path.resolve()),
            soc=chip.soc_model,
            context=str(worker.folder / f"{chip.name}.onnx"),
        )
        _refuse_floats(path, chip, describe(_dumps(worker)))
    except WorkerError as error:
        raise GraphError(
            f"{cannot('load', worker.name, str(path), error)}; 'deploy lint {path} --target qnn "
            f"--soc {chip.name}' names what HTP refuses"
        ) from None
    except BaseException:
        worker.close()
        raise
    return worker, ports


def _refuse_floats(path: Path, chip: Chip, execution: Execution) -> None:
    """Refuse what a chip without half precision would; the backend is not told of each of them."""
    others = [name for names in execution.float_nodes.values() for name in names]
    in_float = [*execution.float_convolutions, *others]
    if in_float and not chip.has_half:
        raise GraphError(
            f"{chip.name} computes no floats, which {path} has ({in_float[0]}): 'deploy lint "
            f"--target qnn --soc {chip.name}' names each"
        )


def _dumps(worker: Worker) -> list[Dump]:
    """Return the backend's own dump of each partition."""
    contents = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(worker.folder.glob("*.json"))
    ]
    return [content for content in contents if "graph" in content]


def _contexts(worker: Worker, chip: Chip) -> list[Path]:
    """Return the files of the compiled graph."""
    return sorted(worker.folder.glob(f"{chip.name}*"))


def describe(dumps: Iterable[Dump]) -> Execution:
    """Return what of a graph is computed in 8 bits, from the dumps of its partitions.

    A convolution is where its image, its weight and its result are.
    """
    integers, floats, others = 0, list[str](), list[tuple[str, str]]()
    counts: Counter[str] = Counter()
    for dump in dumps:
        types = {name: t["data_type"] for name, t in dump["graph"]["tensors"].items()}
        for name, node in dump["graph"]["nodes"].items():
            counts[node["type"]] += 1
            label = re.sub(r"_token_\d+$", "", name)
            found = [types[t] for t in (*node["input_names"][:2], *node["output_names"])]
            if "Conv" in node["type"] and node["type"] not in CONVERSIONS:
                if all(kind in EIGHT_BITS for kind in found):
                    integers += 1
                else:
                    floats.append(label)
            elif found[-1] in FLOATS and node["type"] not in (*CONVERSIONS, *PASSIVE):
                others.append((node["type"], label))
    return Execution(
        integer_convolutions=integers,
        float_convolutions=tuple(floats),
        float_nodes=by_operator(others),
        conversions=sum(counts[kind] for kind in CONVERSIONS),
    )


def read_footprint(log: str) -> dict[str, int]:
    """Return what the compiler planned, bytes: traffic an image, and memory on the chip (VTCM).

    The traffic holds what is spilled for want of that memory and filled again.
    """
    planned: Counter[str] = Counter()
    for what, size in PLANNED.findall(log):
        planned[what] += int(size)
    found = {
        "ddr_read_bytes": planned["read_total"],
        "ddr_write_bytes": planned["write_total"],
        "spilled_bytes": planned["spill"],
    }
    fast = [int(size) for size in FAST_MEMORY.findall(log)]
    return (found if planned else {}) | ({"fast_memory_bytes": max(fast)} if fast else {})


def require() -> None:
    """See that the provider is there; raises DeployError if not, or if it is of another version."""
    note = " (it holds libraries under Qualcomm's own licence, docs/targets.md)"
    require_package("onnxruntime-qnn", "2.7", "qnn", note)


def find_chip(name: str) -> Chip:
    """Return a chip; raises DeployError if none of that name is known."""
    check_chip(name, CHIPS)
    return CHIPS[name]


def on(name: str) -> Backend:
    """Return the backend of a chip; raises DeployError if none of that name is known."""
    chip = find_chip(name)
    return Backend(
        runtime=Runtime.QNN,
        open=lambda path, _threads, _exact: QnnRunner(path, chip),
        require=require,
        takes_others=False,
        soc=name,
        on=on,
    )


BACKEND = on(DEFAULT_CHIP)
