"""Rules of Qualcomm's HTP, each from what its backend said of small graphs (docs/targets.md).

onnxruntime-qnn 2.7.0 on x86, 26 November 2026. The provider brings a node to the chip in 8 or 16
bits if all that it takes is dequantized and one QuantizeLinear takes its result. Any other node is
one of floats: chips that compute in half precision take it, the others refuse it, and all refuse it
where a weight with a scale for each channel, or a 32-bit bias, would have to be dequantized for it.
"""

import numpy as np

from deploy.graph.activations import ACTIVATIONS, QUANTIZABLE, SAME_SCALE, keeps_scale
from deploy.graph.qdq import DEQUANTIZE, QUANTIZE
from deploy.lint import operators
from deploy.lint.checked import Checked, Problems
from deploy.lint.htp_nodes import (
    bias_of,
    changed_scale,
    float_input,
    float_result,
    in_float,
    mixed_types,
)

BARE = ("Identity", "Transpose")  # that HTP takes on integers without Q/DQ around them


def integer_operators(checked: Checked) -> Problems:
    """Want no operator but Transpose on integers that stand for reals: DQ and Q are around it.

    QNN: "Requested I/O datatype set: in[0]:QNN_DATATYPE_UINT_8" (Pad), "Tensor 0 and 0 have
    mismatching datatypes. 0x108 != 0x408" (Slice, Resize): without Q/DQ it knows no scale.
    """
    graph, integers = checked.graph, set[str]()
    for node in graph.model.graph.node:
        takers = [taker for name in node.output for taker in graph.consumers[name]]
        is_bare = node.op_type not in (QUANTIZE, DEQUANTIZE) and (
            bool(integers & {*node.input}) or any(n.op_type == DEQUANTIZE for n in takers)
        )
        if is_bare or node.op_type == QUANTIZE:
            integers.update(node.output)
        if is_bare and node.op_type not in BARE:
            yield node.name, f"is {node.op_type} on integers, without Q/DQ around it"


def float_inputs(checked: Checked) -> Problems:
    """Want all that an 8-bit operator takes dequantized, a constant as well.

    QNN, on chips without half precision: "backendValidateOpConfig() failed for node … of type
    ElementWiseAdd with error code 3110"; on all, of the weight of such a Conv: "QNN EP does not
    support a standalone DQ op with per-channel quantization".
    """
    for node in checked.nodes(*QUANTIZABLE):
        if problem := float_input(checked.graph, node):
            yield node.name, problem


def float_weights(checked: Checked) -> Problems:
    """Want a convolution's weight dequantized from 8 bits.

    onnxruntime 1.31 quantizes a float one between Q/DQ by itself, with one scale
    (WeightBiasQuantization); without that it computes in float.
    """
    for node, problem in operators.float_weights(checked):
        yield node, f"{problem}, or with one scale where onnxruntime quantizes it by itself"


def float_results(checked: Checked) -> Problems:
    """Want an operator's result to go to one QuantizeLinear, nowhere else, nor out of the graph.

    QNN as for :func:`float_inputs`; of a 32-bit bias that is left over: "Unsupported input/output
    datatypes requested for the HTP Op 'Dequantize'".
    """
    for node in checked.nodes(*QUANTIZABLE):
        if problem := float_result(checked.graph, node):
            yield node.name, problem


def one_type(checked: Checked) -> Problems:
    """Want what an operator takes and gives quantized to one type.

    QNN as for :func:`float_inputs`: an operator of two types is none of its node groups.
    """
    for node in checked.nodes(*QUANTIZABLE, *ACTIVATIONS):
        if problem := mixed_types(checked.graph, node):
            yield node.name, problem


def changed_scales(checked: Checked) -> Problems:
    """Want the same scale before and after a MaxPool or Resize; the zero point may change.

    QNN, on chips without half precision, for a ratio of 1.0001 already: "backendValidateOpConfig()
    failed for node … of type PoolMax2d with error code 3110".
    """
    for node in filter(keeps_scale, checked.nodes(*SAME_SCALE)):
        if problem := changed_scale(checked.graph, node):
            yield node.name, problem


def separate_activations(checked: Checked) -> Problems:
    """Want a Relu or Clip between DQ and Q, or done by the QuantizeLinear after it.

    QNN: "backendValidateOpConfig() failed for node … of type ReluMinMax with error code 3110";
    between DQ and Q it is an operator of its own.
    """
    for node in checked.nodes(*ACTIVATIONS):
        producer = checked.graph.producers.get(node.input[0])
        if producer is not None and producer.name in checked.kept_float:
            continue
        if problem := in_float(checked.graph, node):
            yield node.name, problem


def dequantized_weights(checked: Checked) -> Problems:
    """Want a convolution that is kept float to have a float weight and bias.

    QNN: "QNN EP does not support a standalone DQ op with per-channel quantization"; of a 32-bit
    bias: "Unsupported input/output datatypes requested for the HTP Op 'Dequantize'".
    """
    graph = checked.graph
    for node in graph.model.graph.node:
        if node.op_type != "Conv" or node.name not in checked.kept_float:
            continue
        weight, bias = graph.dequantized(node.input[1]), bias_of(graph, node)
        by_channel = any(a is not None and not a.per_tensor for a in (weight, bias))
        if (by_channel or (bias is not None and bias.dtype == np.int32)) and in_float(graph, node):
            yield node.name, "is float, but its weight or bias is dequantized for it"


def weight_types(checked: Checked) -> Problems:
    """Want weights of 8 bits, signed as the activations, symmetric where each channel has a scale.

    onnxruntime: a Conv of signed activations and uint8 weights is none of its node groups. QNN, of
    int8 with zero points 5: "has incorrect Value -5, expected equal to 0"; of uint8 with zero
    points 0: "has incorrect Value 0, expected equal to -128"; of 16 bits: "Unsupported input/output
    datatypes requested for the HTP Op 'Conv2d'".
    """
    for node, data, weight in checked.convolutions():
        middle = {np.dtype(np.int8): 0, np.dtype(np.uint8): 128}.get(weight.dtype)
        if middle is None:
            yield node.name, f"has {weight.dtype} weights, not int8 or uint8"
        elif weight.dtype.kind == "u" and data.dtype.kind == "i":
            yield node.name, f"has {weight.dtype} weights, but {data.dtype} activations"
        elif not weight.per_tensor and (weight.zero_point != middle).any():
            yield node.name, f"has {weight.dtype} weights with zero points other than {middle}"


def biases(checked: Checked) -> Problems:
    """Want biases that are float or 32-bit, with a scale for each channel where the weight has.

    Any scale will do. QNN, of 8 bits: "QNN EP does not support a standalone DQ op with per-channel
    quantization" (with one scale for the weight: computed in float); of one scale where the weight
    has many: no word, and a result that is wrong by 4 to 34 steps.
    """
    for node, _, weight in checked.convolutions():
        bias = bias_of(checked.graph, node)
        if bias is not None and bias.dtype != np.int32:
            yield node.name, f"has a bias of {bias.dtype}, not int32 or float"
        elif bias is not None and bias.per_tensor and not weight.per_tensor:
            yield node.name, f"has one bias scale, but {weight.scale.size} weight scales"


def float_operators(checked: Checked) -> Problems:
    """Want nothing in float, on purpose or not, but what only changes a shape.

    QNN, on chips of which its log says "SocModel doesn't support FP16": "backendValidateOpConfig()
    failed for node … with error code 3110". Other rules name the nodes that should be in 8 bits.
    """
    named = {
        node.name
        for node in checked.nodes(*QUANTIZABLE, *ACTIVATIONS)
        if node.op_type != "Resize" or keeps_scale(node)
    }
    for node in checked.graph.model.graph.node:
        if node.name not in named and (problem := in_float(checked.graph, node)):
            yield node.name, problem
