"""What each accelerator toolchain asks of a quantized graph, as data.

One QDQ graph cannot be the best for all: where one runtime wants a 32-bit bias, another refuses it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

import numpy as np

from deploy.errors import DeployError

VACC = "vacc"  # quantizes by itself: it gets the float graph and a recipe, not a profile


class Bias(StrEnum):
    """What a convolution's bias is stored as."""

    INT32 = "int32"  # with the accumulator's scale: that of the input times that of the weight
    INT8 = "int8"  # with a scale of its own
    FLOAT = "float"


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The form that a target's INT8 graph takes: x ≈ (q - zero_point) * scale.

    Zero points of weights and biases are 0 in every profile.
    """

    name: str
    runtime: str  # that the graph is for, in words
    source: str  # where the rules come from
    activation: type[np.uint8] | type[np.int8] = np.uint8
    symmetric: bool = False  # activations have zero point 0
    weight_max: int = 127  # |q| of a weight, int8, at most; -128 is not used
    per_channel: bool = True  # one scale for each output channel of a weight, not one for all
    power_of_two: bool = False  # every scale is a power of two
    bias: Bias = Bias.INT32
    quantize_results: bool = True  # Q/DQ on the result of every 8-bit node, whoever takes it
    fuse_add: bool = False  # an Add computes in the convolution before it: that branch has no Q/DQ
    float_operators: frozenset[str] = frozenset()  # operators that take and give floats
    # Rewrites that change no result (deploy/quantize/rewrite.py), where they were measured faster.
    separable_pooling: bool = False  # a large max-pooling is one along the height, one the width
    direct_convolution: bool = False  # channels in the numbers that onnxruntime's kernels take


PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            Profile(
                name="ort",
                runtime="onnxruntime on x86 with VNNI",
                source="onnxruntime, 'Quantize ONNX models', qdq_selectors.cc and convsym.cpp",
                separable_pooling=True,
                direct_convolution=True,
            ),
            Profile(
                name="ort-avx2",
                runtime="onnxruntime on x86 without VNNI",
                source="onnxruntime, 'Quantize ONNX models' (reduce_range); issues 5849 and 14642",
                # VPMADDUBSW adds two products u8 * s8 in 16 bits: 2 * 255 * 64 = 32640 <= 32767.
                weight_max=64,
            ),
            Profile(
                name="ort-arm",
                runtime="onnxruntime on ARM",
                source="onnxruntime, 'Quantize ONNX models' (S8S8 where it is the fast form)",
                activation=np.int8,
            ),
            Profile(
                name="openvino",
                runtime="OpenVINO on CPU",
                source="OpenVINO, 'Low Precision Transformations'",
                bias=Bias.FLOAT,
                quantize_results=False,
            ),
            Profile(
                name="tensorrt",
                runtime="TensorRT, explicit quantization",
                source="TensorRT, 'Explicit Quantization', Q/DQ placement; issues 2774, 2976, 4698",
                activation=np.int8,
                symmetric=True,
                bias=Bias.FLOAT,
                quantize_results=False,
                fuse_add=True,
                float_operators=frozenset({"Resize"}),
            ),
            Profile(
                name="qnn",
                runtime="Qualcomm HTP by onnxruntime's QNN execution provider",
                source="onnxruntime, 'QNN Execution Provider'; onnxruntime-qnn issue 739",
            ),
            Profile(
                name="pow2",
                runtime="AMD Vitis AI and Ryzen AI (XINT8)",
                source="AMD Quark for ONNX, XInt8Spec",
                activation=np.int8,
                symmetric=True,
                per_channel=False,
                power_of_two=True,
                bias=Bias.INT8,
            ),
        )
    }
)
DEFAULT_TARGET = "ort"
TARGETS = (*PROFILES, VACC)


def find_profile(name: str) -> Profile:
    """Return a target's profile; raises DeployError if there is none of that name."""
    if name == VACC:
        raise DeployError(f"target {VACC} quantizes by itself: it has no rules for an INT8 graph")
    if name not in PROFILES:
        raise DeployError(f"no target {name!r}: choose one of {', '.join(TARGETS)}")
    return PROFILES[name]
