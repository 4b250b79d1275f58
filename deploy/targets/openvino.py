"""OpenVINO on CPU."""

import tempfile
from pathlib import Path

from deploy.errors import DeployError
from deploy.graph.profile import Bias, Profile
from deploy.lint.rules import COMMON, CONCAT_SCALE, SATURATED_BIAS, WEIGHT_PER_CHANNEL
from deploy.runtimes.openvino import load_openvino, openvino_core
from deploy.runtimes.runner import Runtime
from deploy.targets.accelerator import Accelerator, Bundled, Files, Part, Precision, Toolbox
from deploy.targets.vendors import VendorQuantizer, nncf_onnx

START = (
    '`openvino.Core().compile_model("{}", "CPU")`; the hint INFERENCE_PRECISION_HINT: f32 keeps '
    "what is float from bfloat16"
)
SATURATES = (
    "on x86 without 8-bit dot products (VNNI) OpenVINO's kernels saturate by default; there, use "
    "the graph of 'deploy quantize --int8 --target ort-avx2' instead"
)


def bundle(bundled: Bundled) -> Part:
    """Return OpenVINO's own form of the graph, or ONNX where OpenVINO is not installed."""
    content = bundled.model.SerializeToString(deterministic=True)
    try:
        library = load_openvino()
    except DeployError:
        return Part(
            files={"model.onnx": content},
            start=START.format("model.onnx"),
            check="python3 check.py",
            note="OpenVINO was not installed: the model is ONNX, which OpenVINO reads as well",
        )
    with tempfile.TemporaryDirectory() as folder:
        model = openvino_core().read_model(content)
        library.save_model(model, str(Path(folder, "model.xml")), compress_to_fp16=False)
        files: Files = {
            name: Path(folder, name).read_bytes() for name in ("model.xml", "model.bin")
        }
    return Part(
        files=files,
        start=START.format("model.xml"),
        check="python3 check.py",
        note=SATURATES if bundled.precision is Precision.INT8 else None,
    )


OPENVINO = Accelerator(
    name="openvino",
    runtime="OpenVINO on CPU",
    source="OpenVINO, 'Low Precision Transformations'",
    profile=Profile(name="openvino", bias=Bias.FLOAT, quantize_results=False),
    rules=(*COMMON, WEIGHT_PER_CHANNEL, SATURATED_BIAS, CONCAT_SCALE),
    executed_by=Runtime.OPENVINO,
    vendor=VendorQuantizer(
        label="NNCF, mixed, fast bias correction", quantize=nncf_onnx, packages=("nncf",)
    ),
    toolchains={"openvino": Toolbox(title="OpenVINO", write=bundle)},
)
