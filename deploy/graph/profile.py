"""The form that a quantized graph may take, as data."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np


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
    activation: type[np.uint8] | type[np.int8] = np.uint8
    symmetric: bool = False  # activations have zero point 0
    weight_max: int = 127  # |q| of a weight, int8, at most; -128 is not used
    per_channel: bool = True  # one scale for each output channel of a weight, not one for all
    group_scale: bool = False  # a weight has one scale for each group, where there are several
    power_of_two: bool = False  # every scale is a power of two
    bias: Bias = Bias.INT32
    quantize_results: bool = True  # Q/DQ on the result of every 8-bit node, whoever takes it
    same_scale_average: bool = False  # an AveragePool's result has the scale of its input
    fuse_add: bool = False  # an Add computes in the convolution before it: that branch has no Q/DQ
    float_operators: frozenset[str] = frozenset()  # operators that take and give floats
    # Rewrites that change no result (deploy/quantize/rewrite.py), where they were measured faster.
    separable_pooling: bool = False  # a large max-pooling is one along the height, one the width
    direct_convolution: bool = False  # channels in the numbers that onnxruntime's kernels take
    # One that rounds twice more, for a Resize that would leave the accelerator.
    convolve_resizes: bool = False  # but for those that double exactly
