"""Accelerators that scale by shifting: AMD Vitis AI and Ryzen AI (XINT8)."""

import numpy as np

from deploy.graph.profile import Bias, Profile
from deploy.lint.rules import (
    CHANGED_SCALE,
    COMMON,
    CONCAT_SCALE,
    FLOAT_RESULT,
    NARROW_BIAS,
    POWER_OF_TWO,
    WEIGHT_PER_TENSOR,
    ZERO_POINT,
)
from deploy.targets.accelerator import Accelerator

POW2 = Accelerator(
    name="pow2",
    runtime="AMD Vitis AI and Ryzen AI (XINT8)",
    source="AMD Quark for ONNX, XInt8Spec",
    profile=Profile(
        name="pow2",
        activation=np.int8,
        symmetric=True,
        per_channel=False,
        power_of_two=True,
        bias=Bias.INT8,
        same_scale_average=True,
    ),
    rules=(
        *COMMON,
        ZERO_POINT,
        POWER_OF_TWO,
        WEIGHT_PER_TENSOR,
        NARROW_BIAS,
        FLOAT_RESULT,
        CHANGED_SCALE,
        CONCAT_SCALE,
    ),
    also_for=frozenset({"openvino"}),
)
