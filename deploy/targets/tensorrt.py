"""TensorRT, by explicit quantization."""

import numpy as np

from deploy.graph.profile import Bias, Profile
from deploy.lint.rules import (
    COMMON,
    FLOAT_BIAS,
    QUANTIZED_OUTPUT,
    RESIDUAL,
    RESIZE_INPUT,
    WEIGHT_PER_CHANNEL,
    ZERO_POINT,
)
from deploy.targets.accelerator import Accelerator, Bundled, Part, Precision, Toolbox
from deploy.targets.render import render

# TensorRT 8 needs leave for each precision that a graph holds.
WEAK_FLAGS = {Precision.INT8: "--int8 --fp16", Precision.FP16: "--fp16", Precision.FP32: "--noTF32"}
HOW = {
    Precision.INT8: "int8 between Q/DQ, float32 elsewhere",
    Precision.FP16: "half between its casts, float32 elsewhere",
    Precision.FP32: "float32",
}


def bundle(bundled: Bundled) -> Part:
    """Return the ONNX graph and the script that builds an engine of it on the device."""
    name, precision = bundled.description["input"]["name"], bundled.precision
    script = render(
        "deploy.targets",
        "build.sh.j2",
        how=HOW[precision],
        weak=WEAK_FLAGS[precision],
        strong=" --noTF32" if precision is Precision.FP32 else "",
        input=name,
    )
    return Part(
        files={
            "model.onnx": bundled.model.SerializeToString(deterministic=True),
            "build.sh": script,
            "golden-input.bin": bundled.golden[name].tobytes(),
        },
        start="`sh build.sh` on the device, with trtexec in PATH: it makes `model.plan`",
        check="python3 check.py output.json",
        note="no device was at hand: build.sh has not been run",
    )


TENSORRT = Accelerator(
    name="tensorrt",
    runtime="TensorRT, explicit quantization",
    source="TensorRT, 'Explicit Quantization', Q/DQ placement; issues 2774, 2976, 4698",
    profile=Profile(
        name="tensorrt",
        activation=np.int8,
        symmetric=True,
        bias=Bias.FLOAT,
        quantize_results=False,
        fuse_add=True,
        float_operators=frozenset({"Resize"}),
    ),
    rules=(
        *COMMON,
        ZERO_POINT,
        FLOAT_BIAS,
        WEIGHT_PER_CHANNEL,
        RESIZE_INPUT,
        QUANTIZED_OUTPUT,
        RESIDUAL,
    ),
    also_for=frozenset({"openvino"}),
    toolchains={"tensorrt": Toolbox(title="TensorRT", write=bundle)},
)
