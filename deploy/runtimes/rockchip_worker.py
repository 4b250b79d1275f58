"""Rockchip's rknn-toolkit2: a program that rockchip.py starts in its own Python. Nothing of ours.

Requests: ``{"do": "open", …}`` compiles a graph for the simulator, ``run`` runs it on one image,
``calibrate`` writes the ranges of the compiler's own quantizer. The compiler's log goes to
standard error, with the table of what it has made of each layer.
"""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rknn.api import RKNN
from ruamel.yaml import YAML

COMPILED: list[RKNN] = []
SECTION, NAME = "quantize_parameters", "network"


def open_(
    folder: str, model: str, chip: str, ranges: str | None, size: Sequence[int]
) -> dict[str, Any]:
    """Compile a graph; with ranges a float one is quantized by them.

    The answer has the file for the chip.
    """
    os.chdir(folder)
    compiled = _loaded(model, chip)
    if ranges is None:
        _check(compiled.build(do_quantization=False), "build")
    else:
        np.save("any.npy", np.zeros((1, 3, *size), np.float32))
        Path("dataset.txt").write_text("any.npy\n", encoding="utf-8")
        own = _measured(compiled, model, "dataset.txt")
        _take(own, json.loads(Path(ranges).read_text(encoding="utf-8")))
        compiled.release()
        compiled = RKNN(verbose=True)
        made = _made(model)
        step = compiled.hybrid_quantization_step2(
            model_input=made[0], data_input=made[1], model_quantization_cfg=made[2]
        )
        _check(step, "hybrid_quantization_step2")
    path = str(Path(folder, f"{NAME}.rknn"))
    _check(compiled.export_rknn(path), "export_rknn")
    _check(compiled.init_runtime(), "init_runtime")
    COMPILED[:] = [compiled]
    return {"rknn": path}


def calibrate(
    folder: str, model: str, chip: str, images: Sequence[str], ranges: str
) -> dict[str, Any]:
    """Write {tensor: [low, high]} as the compiler's own calibration has them, by default."""
    os.chdir(folder)
    Path("dataset.txt").write_text("".join(f"{name}\n" for name in images), encoding="utf-8")
    compiled = _loaded(model, chip)
    _, content = _read(_measured(compiled, model, "dataset.txt"))
    found = {name: [v["min"][0], v["max"][0]] for name, v in content[SECTION].items()}
    Path(ranges).write_text(json.dumps(found), encoding="utf-8")
    return {}


def run(image: str, result: str) -> dict[str, Any]:
    """Run the graph on a normalized image (1, 3, H, W) in one file, write its result to another."""
    (compiled,) = COMPILED
    outputs = compiled.inference(inputs=[np.load(image)], data_format=["nchw"])
    if not outputs:
        raise RuntimeError("the simulator gives nothing")
    np.save(result, outputs[0])
    return {}


def _loaded(model: str, chip: str) -> RKNN:
    """Return a graph that takes normalized floats, as the simulator takes it."""
    compiled = RKNN(verbose=True)
    _check(compiled.config(target_platform=chip), "config")
    _check(compiled.load_onnx(model=model), "load_onnx")
    return compiled


def _measured(compiled: RKNN, model: str, dataset: str) -> Path:
    """Calibrate; return the file with the ranges."""
    step = compiled.hybrid_quantization_step1(dataset=dataset, proposal=False)
    _check(step, "hybrid_quantization_step1")
    return Path(_made(model)[2])


def _made(model: str) -> tuple[str, str, str]:
    """Return the files that the first step of a quantization writes."""
    stem = Path(model).stem
    return f"{stem}.model", f"{stem}.data", f"{stem}.quantization.cfg"


def _read(path: Path) -> tuple[YAML, Any]:
    yaml = YAML()
    return yaml, yaml.load(path.read_text(encoding="utf-8"))


def _take(path: Path, ranges: dict[str, list[float]]) -> None:
    """Put ranges into the compiler's file; those of tensors that it adds are of what they copy."""
    yaml, content = _read(path)
    missing = []
    for name, values in content[SECTION].items():
        found = ranges.get(name, ranges.get(name.removesuffix("_int8")))
        if found is None:
            missing.append(name)
        else:
            values["min"], values["max"] = [float(found[0])], [float(found[1])]
    if missing:
        raise RuntimeError(f"no range for {missing[0]}")
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(content, file)


def _check(code: int, what: str) -> None:
    if code != 0:
        raise RuntimeError(f"{what} fails with code {code}")


def briefly(do: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Return what fails with the last line of an error alone: its libraries' have many."""

    def done(**request: Any) -> dict[str, Any]:
        try:
            return do(**request)
        except Exception as error:  # its libraries raise what they like
            last = [part.strip() for part in str(error).splitlines() if part.strip()] or ["none"]
            raise RuntimeError(last[-1]) from error

    return done


REQUESTS = {
    "open": briefly(open_),
    "calibrate": briefly(calibrate),
    "run": briefly(run),
}
