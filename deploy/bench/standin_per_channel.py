"""``python -m deploy.bench.standin_per_channel``: what a carrier gains where weights have channels.

vamc quantizes weights with a scale for each channel (``quantize_per_channel``), which TVM's
relay.quantize cannot. So a plain quantizer of that kind stands in for it: our own with the form of
TensorRT's graphs and no levers, which calibrates the plain float graph and the carrier.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from deploy.bench.standin_tvm import compare
from deploy.calibration import Method, RangeConfig, find_voc_root, preprocess, read_split
from deploy.calibration.voc import pick, read_image
from deploy.errors import USER_ERRORS
from deploy.models import DEFAULT_VARIANT
from deploy.progress import ConsoleProgress
from deploy.quantize import quantization
from deploy.quantize.calibration_source import CalibrationSource
from deploy.quantize.plan import plan_int8
from deploy.quantize.preparation import observe_graph, prepare
from deploy.quantize.recipe import RECIPES, RecipeName
from deploy.runtimes.onnxruntime import OnnxRunner
from deploy.store.artifacts import DEFAULT_OUT, resolve_network
from deploy.store.environment import describe_environment
from deploy.targets import PROFILES

METHODS = (Method.MINMAX, Method.PERCENTILE, Method.ENTROPY)


def bench(variant: str, *, images: int, limit: int, out: Path) -> None:
    """Quantize both graphs with ``images`` of train; print figures over ``limit`` of val."""
    progress, source = ConsoleProgress(), CalibrationSource.find(None, "train", images)
    prepared = prepare(resolve_network(variant, out), source, None, progress)
    fit, size = prepared.calibration.key.fit, prepared.graph.input_size
    evaluated = pick(read_split(find_voc_root(), "val"), limit)
    inputs = [preprocess(read_image(sample.image), fit, size) for sample in evaluated]
    runner = OnnxRunner(prepared.graph.model)
    reference = [runner(image) for image in inputs]
    recipe, profile = RECIPES[RecipeName.FAST], PROFILES["ort"]
    plan = quantization.plan(prepared, source, RangeConfig(), profile, recipe, progress)
    for name, graph in (("plain", prepared.graph), ("carrier", plan.carrier().graph)):
        statistics = observe_graph(graph, source, fit, progress, f"calibrate {name}")
        for method in METHODS:
            quantized, _ = plan_int8(
                graph,
                statistics,
                [],
                config=RangeConfig(method=method),
                profile=PROFILES["tensorrt"],
                recipe=RECIPES[RecipeName.PLAIN],
            ).build()
            runner = OnnxRunner(quantized)
            figures = compare(reference, [runner(image) for image in inputs])
            print(json.dumps({"graph": name, "method": method.value, **figures}), flush=True)
    print(json.dumps(describe_environment()))


def _arguments() -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m deploy.bench.standin_per_channel")
    parser.add_argument("variant", nargs="?", default=DEFAULT_VARIANT, help="exported before")
    parser.add_argument("--images", type=int, default=50, help="of train, that calibrate")
    parser.add_argument("--limit", type=int, default=24, help="images of val that evaluate")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    return vars(parser.parse_args())


if __name__ == "__main__":
    try:
        bench(**_arguments())
    except USER_ERRORS as error:
        sys.exit(f"{type(error).__name__}: {error}")
