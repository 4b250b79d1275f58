"""The rules that accelerators choose from, each with what to do where it is broken.

A graph that breaks one still computes what it should, but the toolchain refuses it or computes
nodes in float or in more steps than needed, unless the rule is about accuracy.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import onnx

from deploy.errors import GraphError
from deploy.graph.metadata import SUMMARY, read_metadata
from deploy.graph.profile import Profile
from deploy.graph.qdq import QdqGraph
from deploy.lint import htp, operators, parameters
from deploy.lint.checked import Checked, Problems


@dataclass(frozen=True)
class Rule:
    """A rule of a target; its source is in the docstring of ``check``."""

    name: str
    check: Callable[[Checked], Problems]
    remedy: str


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A rule that a node breaks."""

    rule: str
    node: str
    problem: str
    remedy: str


FLOAT_INPUT = Rule(
    "float-input",
    operators.float_inputs,
    "put QuantizeLinear and DequantizeLinear on it, with the tensor's own range",
)
FLOAT_WEIGHT = Rule(
    "float-weight", operators.float_weights, "store it in 8 bits before a DequantizeLinear"
)
FLOAT_RESULT = Rule(
    "float-result",
    operators.float_results,
    "let one QuantizeLinear alone take it, and all others what comes after that",
)
SEPARATE_ACTIVATION = Rule(
    "separate-activation",
    operators.separate_activations,
    "let the smallest q after it stand for 0 and the largest for no more than its bound",
)
RESIZE_INPUT = Rule(
    "resize-input", operators.quantized_before_resize, "move Q/DQ behind the Resize"
)
QUANTIZED_OUTPUT = Rule("quantized-output", operators.quantized_for_nothing, "take this Q/DQ away")
RESIDUAL = Rule(
    "residual",
    operators.quantized_sums,
    "take Q/DQ away from that branch and keep those of the other",
)
FIXED_SHAPE = Rule("fixed-shape", operators.variable_shapes, "export with a fixed input size")
OPSET = Rule(
    "opset",
    operators.old_pooling,
    "convert the float graph with onnx.version_converter and quantize it anew",
)
ACTIVATION_TYPE = Rule(
    "activation-type",
    parameters.activation_types,
    "quantize activations to the type that the target computes in",
)
ACTIVATION_SCALES = Rule(
    "activation-scales", parameters.activation_scales, "quantize activations per tensor"
)
CHANGED_SCALE = Rule(
    "changed-scale",
    parameters.changed_scales,
    "give its result the scale and zero point of its input",
)
CONCAT_SCALE = Rule(
    "concat-scale",
    parameters.concatenated_scales,
    "give all its inputs the widest one's scale and zero point",
)
ZERO_POINT = Rule(
    "zero-point",
    parameters.zero_points,
    "quantize symmetrically: scale = max |x| / 127, zero point 0",
)
POWER_OF_TWO = Rule(
    "power-of-two", parameters.other_scales, "round the scale up to the next power of two"
)
WEIGHT_TYPE = Rule("weight-type", parameters.weight_types, "quantize weights symmetrically to int8")
WEIGHT_AXIS = Rule("weight-axis", parameters.weight_axes, "give output channels scales: axis=0")
WEIGHT_PER_CHANNEL = Rule(
    "weight-channels", parameters.weight_channels, "give each output channel a scale of its own"
)
WEIGHT_PER_TENSOR = Rule(
    "weight-channels", parameters.weight_channels, "give a weight one scale for all channels"
)
WEIGHT_RANGE = Rule(
    "weight-range", parameters.weight_ranges, "quantize weights to 7 bits (reduce_range)"
)
WEIGHT_ROOM = Rule(
    "weight-range", parameters.weight_room, "quantize weights to the range that the target keeps"
)
INTEGER_BIAS = Rule(
    "bias-form",
    parameters.integer_biases,
    "store it as int32 with scale = input scale * weight scale, zero point 0",
)
NARROW_BIAS = Rule(
    "bias-form", parameters.narrow_biases, "store it as int8 with a power-of-two scale of its own"
)
FLOAT_BIAS = Rule("bias-form", parameters.float_biases, "keep it a float initializer")
SATURATED_BIAS = Rule(
    "bias-range",
    parameters.saturated_biases,
    "give the channel's weight a larger scale, so that its bias fits",
)

# Of Rockchip.
CPU_RESIZE = Rule(
    "cpu-resize",
    operators.resizes_on_cpu,
    "quantize for rockchip, whose 8-bit Resizes are convolutions, or export with an input size of "
    "32 k + 1, such as 513, at which the network's Resizes double exactly",
)
# Of ncnn.
FLOAT_OPERANDS = Rule(
    "quantized-input",
    operators.quantized_floats,
    "take this Q/DQ away: convolutions alone have any",
)
GROUP_SCALE = Rule(
    "group-scale",
    parameters.group_scales,
    "give all output channels of a group one scale, or keep the convolution float",
)

# Of Qualcomm's HTP.
HTP_FLOAT_INPUT = replace(FLOAT_INPUT, check=htp.float_inputs)
HTP_FLOAT_WEIGHT = replace(FLOAT_WEIGHT, check=htp.float_weights)
HTP_FLOAT_RESULT = replace(FLOAT_RESULT, check=htp.float_results)
HTP_SEPARATE_ACTIVATION = replace(SEPARATE_ACTIVATION, check=htp.separate_activations)
HTP_CHANGED_SCALE = replace(
    CHANGED_SCALE, check=htp.changed_scales, remedy="give its result the scale of its input"
)
HTP_WEIGHT_TYPE = replace(WEIGHT_TYPE, check=htp.weight_types)
HTP_BIAS = Rule(
    "bias-form", htp.biases, "keep it a float initializer, or store it as int32, scaled as products"
)
INTEGER_OPERATOR = Rule(
    "integer-operator", htp.integer_operators, "put DequantizeLinear before it, Quantize behind it"
)
MIXED_TYPES = Rule(
    "mixed-types", htp.one_type, "quantize all that it takes and gives to the same type"
)
DEQUANTIZED_WEIGHT = Rule(
    "dequantized-weight", htp.dequantized_weights, "store its weight and bias as floats"
)
FLOAT_OPERATOR = Rule(
    "float-operator",
    htp.float_operators,
    "this chip refuses it: compute it in 8 bits or outside, or take a chip with half precision",
)

COMMON = (FLOAT_INPUT, FLOAT_WEIGHT, ACTIVATION_TYPE, ACTIVATION_SCALES, WEIGHT_TYPE, WEIGHT_AXIS)
# What onnxruntime's kernels ask beyond that.
NODE_GROUPS = (
    *COMMON,
    FLOAT_RESULT,
    SEPARATE_ACTIVATION,
    CHANGED_SCALE,
    INTEGER_BIAS,
    SATURATED_BIAS,
    OPSET,
)
HTP = (
    HTP_FLOAT_INPUT,
    HTP_FLOAT_WEIGHT,
    HTP_FLOAT_RESULT,
    HTP_SEPARATE_ACTIVATION,
    HTP_CHANGED_SCALE,
    MIXED_TYPES,
    INTEGER_OPERATOR,
    DEQUANTIZED_WEIGHT,
    ACTIVATION_TYPE,
    ACTIVATION_SCALES,
    HTP_WEIGHT_TYPE,
    WEIGHT_AXIS,
    HTP_BIAS,
    SATURATED_BIAS,
    FIXED_SHAPE,
    OPSET,
)


def check(model: onnx.ModelProto, profile: Profile, rules: Sequence[Rule]) -> list[Finding]:
    """Return every one of ``rules`` that a QDQ graph breaks, node by node.

    Nodes that the graph's metadata name as kept float may be that.

    Raises:
        GraphError: the graph has no convolution, is in another format than QDQ, or a scale is no
            constant.
    """
    checked = Checked(graph=QdqGraph.of(model), profile=profile, kept_float=_kept_float(model))
    return [
        Finding(rule=rule.name, node=node, problem=problem, remedy=rule.remedy)
        for rule in rules
        for node, problem in rule.check(checked)
    ]


def _kept_float(model: onnx.ModelProto) -> frozenset[str]:
    """Return the nodes that were kept float, on purpose or for a reason, by the metadata."""
    metadata = read_metadata(model)
    on_purpose = _read_json(metadata.get("kept_float", "[]"))
    if not isinstance(on_purpose, list):
        raise GraphError(
            f"the graph's metadata kept_float is no JSON list: {metadata['kept_float'][:40]!r}"
        )
    summary = _read_json(metadata.get(SUMMARY, "{}"))
    reasons = summary.get("kept_float") if isinstance(summary, dict) else None
    return frozenset(map(str, [*on_purpose, *(reasons if isinstance(reasons, dict) else ())]))


def _read_json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
