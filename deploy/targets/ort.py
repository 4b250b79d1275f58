"""onnxruntime on x86 with VNNI, by itself or behind Triton: the default target."""

from deploy.graph.profile import Profile
from deploy.lint.rules import NODE_GROUPS
from deploy.runtimes.runner import Runtime
from deploy.runtimes.sessions import EXACT_ENTRY
from deploy.targets.accelerator import Accelerator, Bundled, Part, Precision, Toolbox
from deploy.targets.render import render
from deploy.targets.vendors import VendorQuantizer, onnxruntime_static

TRITON_TYPES = {"float32": "TYPE_FP32", "uint8": "TYPE_UINT8"}
SATURATES = (
    "on x86 without 8-bit dot products (VNNI) onnxruntime's kernels saturate by default; the "
    f"session entry {': '.join(EXACT_ENTRY)} prevents it; where it cannot be set, use the graph of "
    "'deploy quantize --int8 --target ort-avx2' instead"
)


def triton(bundled: Bundled) -> Part:
    """Return a model repository in ``models``."""
    is_int8 = bundled.precision is Precision.INT8
    config = render(
        "deploy.targets",
        "config.pbtxt.j2",
        model=bundled.description,
        types=TRITON_TYPES,
        # The INT8 graph is made for onnxruntime's kernels on CPUs; of the others Triton chooses.
        kind="KIND_CPU" if is_int8 else "KIND_AUTO",
    )
    name = bundled.title
    return Part(
        files={
            f"models/{name}/1/model.onnx": bundled.model.SerializeToString(deterministic=True),
            f"models/{name}/config.pbtxt": config,
        },
        start="`tritonserver --model-repository=$PWD/models` (with its onnxruntime backend)",
        check="python3 check.py http://localhost:8000",
        note=SATURATES if is_int8 else None,
    )


ORT = Accelerator(
    name="ort",
    runtime="onnxruntime on x86 with VNNI",
    # The first file says which nodes compute in integers between Q/DQ, the second which numbers of
    # channels the fast kernels take.
    source="onnxruntime, 'Quantize ONNX models', qdq_selectors.cc and convsym.cpp",
    profile=Profile(name="ort", separable_pooling=True, direct_convolution=True),
    rules=NODE_GROUPS,
    executed_by=Runtime.ONNXRUNTIME,
    measured_in=frozenset({Runtime.ONNXRUNTIME_ARM}),  # who has one file for all processors
    also_for=frozenset({"ort-arm", "openvino"}),
    vendor=VendorQuantizer(
        label="onnxruntime, MinMax, U8S8 per channel", quantize=onnxruntime_static("MinMax")
    ),
    toolchains={"triton": Toolbox(title="Triton Inference Server", write=triton)},
)
