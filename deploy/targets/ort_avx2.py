"""onnxruntime on x86 without VNNI, whose kernels add two products in 16 bits."""

from deploy.graph.profile import Profile
from deploy.lint.rules import NODE_GROUPS, WEIGHT_RANGE
from deploy.runtimes.runner import Runtime
from deploy.targets.accelerator import Accelerator

ORT_AVX2 = Accelerator(
    name="ort-avx2",
    runtime="onnxruntime on x86 without VNNI",
    source="onnxruntime, 'Quantize ONNX models' (reduce_range); issues 5849 and 14642",
    # VPMADDUBSW adds two products u8 * s8 in 16 bits: 2 * 255 * 64 = 32640 <= 32767.
    profile=Profile(name="ort-avx2", weight_max=64),
    rules=(*NODE_GROUPS, WEIGHT_RANGE),
    executed_by=Runtime.ONNXRUNTIME,
    also_for=frozenset({"ort", "ort-arm", "openvino"}),
)
