"""Sophgo's tpu-mlir: a program that sophgo.py starts in its own Python. Nothing of ours in it.

Requests: ``{"do": "compile", …}`` makes a quantized module, and the file for the chip where asked;
``calibrate`` the compiler's own table; ``open`` loads a module, ``run`` runs it on one image, and
``simulate`` the chip's file in the C-model. Arrays and what is compiled stand in files.
"""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tpu_mlir

pymlir: Any = importlib.import_module("pymlir")  # which tpu_mlir has put where it is found
TOOLS = Path(tpu_mlir.package_path, "python", "tools")
MODULES: list[Any] = []


def compile_(
    folder: str,
    model: str,
    shape: Sequence[int],
    precision: str,
    chip: str,
    table: str | None,
    device: bool,
) -> dict[str, Any]:
    """Compile a graph; the answer names the module and the chip's file, in the folder."""
    _transform(folder, model, shape)
    options = ["--calibration_table", table] if table else []
    options += [] if device else ["--not_gen_bmodel"]
    _tool(
        folder,
        "model_deploy.py",
        *("--mlir", "network.mlir", "--quantize", precision, "--chip", chip),
        *("--model", "network.bmodel", "--skip_validation", "--debug", *options),
    )
    (module,) = Path(folder).glob("*_tpu.mlir")
    return {"module": str(module), "bmodel": str(Path(folder, "network.bmodel"))}


def calibrate(
    folder: str, model: str, shape: Sequence[int], images: str, count: int, table: str
) -> dict[str, Any]:
    """Write the table that the compiler's own calibration gives, with what it does by default."""
    _transform(folder, model, shape)
    _tool(
        folder,
        "run_calibration.py",
        *("network.mlir", "--dataset", images, "--input_num", str(count), "-o", table),
    )
    return {}


def open_(module: str) -> dict[str, Any]:
    """Load a quantized module, whose weights are beside it."""
    os.chdir(Path(module).parent)
    pymlir.set_mem_mode("value_mem")
    loaded = pymlir.module()
    loaded.load(module)
    loaded.set_progress_silent(True)  # before, it would end the process
    MODULES[:] = [loaded]
    return {"inputs": list(loaded.input_names), "outputs": list(loaded.output_names)}


def run(image: str, result: str) -> dict[str, Any]:
    """Run the module on an image (1, 3, H, W) in one file, write its result to another."""
    (module,) = MODULES
    array = np.ascontiguousarray(np.load(image), np.float32)
    module.set_tensor(module.input_names[0], array, array.shape)
    module.invoke(True)
    np.save(result, module.get_fp32_tensor(module.output_names[0]))
    return {}


def simulate(folder: str, bmodel: str, image: str, result: str) -> dict[str, Any]:
    """Run the chip's file on an image in the C-model, write its result to a file."""
    given, got = Path(folder, "input.npz"), Path(folder, "output.npz")
    (module,) = MODULES
    np.savez(given, **{module.input_names[0]: np.load(image)})
    _tool(folder, "model_runner.py", "--input", str(given), "--model", bmodel, "--output", str(got))
    with np.load(got) as found:
        np.save(result, found[found.files[-1]])
    return {}


def _transform(folder: str, model: str, shape: Sequence[int]) -> None:
    _tool(
        folder,
        "model_transform.py",
        *("--model_name", "network", "--model_def", model, "--mlir", "network.mlir"),
        *("--input_shapes", json.dumps([list(shape)])),
    )


def _tool(folder: str, name: str, *arguments: str) -> None:
    """Run one of the compiler's programs in a folder; raises RuntimeError with what it said."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [sys.executable, str(TOOLS / name), *arguments],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=folder,
        env=os.environ | {"PATH": path},
    )
    print(done.stdout, file=sys.stderr, flush=True)
    if done.returncode:
        lines = [line.strip() for line in done.stdout.splitlines() if "rror" in line]
        raise RuntimeError(f"{name}: {(lines or ['it failed'])[-1]}")


REQUESTS = {
    "compile": compile_,
    "calibrate": calibrate,
    "open": open_,
    "run": run,
    "simulate": simulate,
}
