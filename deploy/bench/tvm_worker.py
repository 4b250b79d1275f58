"""TVM's own quantization of a float graph, in an environment of its own: standin_tvm.py starts it.

``python tvm_worker.py GRAPH.onnx CALIBRATION.npy IMAGES.npy LOGITS.npz`` writes the logits of every
image by how it was quantized; ``float`` is not. Needs hhb-tvm and nothing of ours.
"""

import sys
import time
from typing import Any

import numpy as np
import onnx
import tvm
from tvm import relay
from tvm.contrib import graph_executor
from tvm.relay.quantize import _calibrate
from tvm.relay.quantize.kl_divergence import _find_scale_by_kl

TARGET = "llvm -mtriple=x86_64-linux-gnu"
HELD = 64  # tensors that are calibrated at a time
MODES = ("float", "percentile", "max", "kl_divergence")


def main(path: str, calibration: str, images: str, logits: str) -> None:
    """Measure every mode; all four are paths."""
    model = onnx.load(path)
    name = model.graph.input[0].name
    calibrating, evaluated = np.load(calibration), np.load(images)
    shape = {name: (1, *calibrating.shape[1:])}
    module, _ = relay.frontend.from_onnx(model, shape, freeze_params=True)
    dataset = [{name: image[None]} for image in calibrating]
    keep_statistics()
    return_one_threshold()
    found = {}
    for mode in MODES:
        start = time.perf_counter()
        quantized = module if mode == "float" else quantize(module, mode, dataset)
        found[mode] = run(quantized, name, evaluated)
        np.savez(logits, **found)
        print(f"{path} {mode}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)


def keep_statistics() -> None:
    """Let all modes calibrate on what one pass over the images gives: it takes longest."""
    collect = _calibrate.collect_stats
    kept: list[Any] = []

    def collect_once(module: Any, dataset: Any, chunk_by: int) -> list[Any]:
        if not kept:
            kept.extend(collect(module, dataset, chunk_by))
        return kept

    _calibrate.collect_stats = collect_once


def return_one_threshold() -> None:
    """Let kl_divergence give a threshold, as TVM's does and its caller wants; HHB's gives two."""
    _calibrate._find_scale_by_kl = threshold_by_kl


def threshold_by_kl(values: Any) -> Any:
    """Return the upper of (-threshold, threshold)."""
    return _find_scale_by_kl(values)[1]


def quantize(module: Any, mode: str, dataset: list[dict[str, Any]]) -> Any:
    """Return the module quantized in every convolution; max is percentile with all values."""
    by_percentile = _calibrate._find_scale_by_percentile
    if mode == "max":
        _calibrate._find_scale_by_percentile = largest
    config = relay.quantize.qconfig(
        calibrate_mode="percentile" if mode == "max" else mode,
        weight_scale="max",
        skip_conv_layers=[],
        calibrate_chunk_by=HELD,
    )
    with tvm.transform.PassContext(opt_level=3), tvm.target.Target(TARGET), config:
        quantized = relay.quantize.quantize(module, dataset=dataset)
    _calibrate._find_scale_by_percentile = by_percentile
    return quantized


def largest(values: Any) -> Any:
    """Return the largest absolute value: what relay.quantize has no mode for."""
    return np.abs(values).max()


def run(module: Any, name: str, images: Any) -> Any:
    """Return the logits (N, C, h, w) of images (N, 3, H, W)."""
    with tvm.transform.PassContext(opt_level=3):
        library = relay.build(module, target=TARGET)
    executor = graph_executor.GraphModule(library["default"](tvm.cpu()))
    logits = []
    for image in images:
        executor.set_input(name, image[None])
        executor.run()
        logits.append(executor.get_output(0).numpy()[0])
    return np.stack(logits)


if __name__ == "__main__":
    main(*sys.argv[1:])
