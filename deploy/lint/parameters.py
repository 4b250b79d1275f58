"""Rules on types, scales and zero points of activations, weights and biases."""

import numpy as np
import onnx

from deploy.graph.activations import SAME_SCALE, keeps_scale
from deploy.graph.graph import attributes
from deploy.graph.qdq import Affine
from deploy.lint.checked import Checked, Problems

# What a target takes besides the activation type of its profile.
ALSO_ACCEPTED = {
    "qnn": (np.dtype(np.int8), np.dtype(np.uint16), np.dtype(np.int16)),
    "openvino": (np.dtype(np.int8),),
}


def activation_types(checked: Checked) -> Problems:
    """Want activations of the target's 8-bit type.

    onnxruntime, "Quantize ONNX models": U8S8 on x86, S8S8 on ARM; issue 6732 (S8S8 on x86 slower
    than float). QNN: 8 or 16 bits, seen in its backend. TensorRT, Vitis: signed.
    """
    accepted = (np.dtype(checked.profile.activation), *ALSO_ACCEPTED.get(checked.profile.name, ()))
    for node, affine in checked.activations():
        if affine.dtype not in accepted:
            yield node.name, f"is {affine.dtype}, not {' or '.join(map(str, accepted))}"


def activation_scales(checked: Checked) -> Problems:
    """Want one scale and zero point for an activation.

    onnxruntime QLinearConv, OpenVINO "Low Precision Transformations", TensorRT.
    """
    for node, affine in checked.activations():
        if not affine.per_tensor:
            yield node.name, f"has {affine.scale.size} scales"


def changed_scales(checked: Checked) -> Problems:
    """Want the same scale and zero point before and after a MaxPool or Resize.

    onnxruntime, qdq_selectors.cc (DropQDQNodeGroupSelector, IsQDQPairSupported). Of an AveragePool
    as well where the target has it so: AMD Quark for ONNX, align_pool.
    """
    averages = checked.nodes("AveragePool") if checked.profile.same_scale_average else ()
    for node in (*filter(keeps_scale, checked.nodes(*SAME_SCALE)), *averages):
        before = checked.graph.dequantized(node.input[0])
        after = checked.graph.quantized(node.output[0])
        if before is not None and after is not None and not before.same_as(after):
            yield node.name, f"changes scale {before.scale.max():.6g} to {after.scale.max():.6g}"


def concatenated_scales(checked: Checked) -> Problems:
    """Want one scale for all inputs of a Concat.

    OpenVINO, "Low Precision Transformations" (ConcatTransformation); AMD Quark for ONNX,
    align_concat.
    """
    for node in checked.graph.model.graph.node:
        if node.op_type == "Concat":
            affines = [checked.graph.dequantized(name) for name in node.input]
            found = [affine for affine in affines if affine is not None]
            if any(not affine.same_as(found[0]) for affine in found[1:]):
                yield node.name, "takes inputs of different scales"


def zero_points(checked: Checked) -> Problems:
    """Want every zero point to be 0.

    TensorRT, "Explicit Quantization" (symmetric only; issues 2774 and 4698); AMD Quark XInt8Spec.
    """
    for node, affine in checked.affines():
        values = affine.zero_point.ravel()
        if values.any():
            yield node.name, f"has zero point {values[values != 0][0]}"


def other_scales(checked: Checked) -> Problems:
    """Want every scale to be a power of two.

    AMD Quark for ONNX, XInt8Spec (ScaleType.PowerOf2).
    """
    for node, affine in checked.affines():
        scale = affine.scale.ravel()
        other = scale[np.frexp(scale)[0] != 0.5]
        if other.size:
            yield node.name, f"has scale {other[0]:.6g}"


def weight_types(checked: Checked) -> Problems:
    """Want weights of signed 8 bits with zero point 0.

    onnxruntime, "Quantize ONNX models" (S8 weights); OpenVINO and TensorRT: symmetric weights.
    """
    for node, _, weight in checked.convolutions():
        if weight.dtype != np.int8:
            yield node.name, f"has {weight.dtype} weights, not int8"
        elif weight.zero_point.any():
            yield node.name, "has weights with a zero point other than 0"


def weight_axes(checked: Checked) -> Problems:
    """Want a weight's scales to be those of its output channels, axis 0.

    TensorRT, "Explicit Quantization"; OpenVINO, "Low Precision Transformations".
    """
    for node, _, weight in checked.convolutions():
        if not weight.per_tensor and weight.axis != 0:
            yield node.name, f"has weights with scales along axis {weight.axis}"


def weight_channels(checked: Checked) -> Problems:
    """Want a scale for each output channel of a weight, or one for all, as the target does.

    TensorRT and OpenVINO: for each channel, for accuracy; AMD Quark XInt8Spec: one for all.
    """
    for node, _, weight in checked.convolutions():
        if weight.per_tensor is checked.profile.per_channel and _channels(checked, node) > 1:
            yield node.name, f"has {weight.scale.size} weight scales"


def _channels(checked: Checked, node: onnx.NodeProto) -> int:
    values = checked.graph.integers(node.input[1])
    return 2 if values is None else values.shape[0]


def weight_ranges(checked: Checked) -> Problems:
    """Want the sum of two products u8 * s8 to fit 16 bits, in which AVX2 adds them.

    onnxruntime, "Quantize ONNX models" (reduce_range); issues 5849 and 14642: |q| <= 64.
    """
    limit = checked.profile.weight_max
    for node, _, _ in checked.convolutions():
        values = checked.graph.integers(node.input[1])
        if values is not None and (largest := int(np.abs(values.astype(np.int64)).max())) > limit:
            yield node.name, f"has weights up to {largest} of {limit}: sums may saturate"


def weight_room(checked: Checked) -> Problems:
    """Want weights that rknn-toolkit2's import leaves as they are.

    It takes a scale for 128/127 of it (deploy/runtimes/rockchip_graph.py): |q| <= 126.
    """
    limit = checked.profile.weight_max
    for node, _, _ in checked.convolutions():
        values = checked.graph.integers(node.input[1])
        if values is not None and (largest := int(np.abs(values.astype(np.int64)).max())) > limit:
            yield node.name, f"has weights up to {largest} of {limit}: they are rounded again"


def integer_biases(checked: Checked) -> Problems:
    """Want 32-bit biases with the scale of the input times that of the weight.

    onnxruntime, qdq_selectors.cc (ConvNodeGroupSelector) and QLinearConv.
    """
    for node, data, weight in checked.convolutions():
        if len(node.input) < 3 or not node.input[2]:
            continue
        bias = checked.graph.dequantized(node.input[2])
        if bias is None or bias.dtype != np.int32:
            yield node.name, f"has {_shown(bias)} bias, not int32"
        elif not np.allclose(bias.scale, data.scale * weight.scale, rtol=1e-5, atol=0):
            yield node.name, "has a bias whose scale is not input scale times weight scale"
        elif bias.zero_point.any():
            yield node.name, "has a bias with a zero point other than 0"


def _shown(bias: Affine | None) -> str:
    return "a float" if bias is None else f"an {bias.dtype}"


def saturated_biases(checked: Checked) -> Problems:
    """Want no 32-bit bias at the end of its range.

    onnxruntime issue 21000: with a tiny scale it overflows, over half of the accuracy lost.
    """
    limit = np.iinfo(np.int32).max
    for node in checked.nodes("Conv"):
        values = checked.graph.integers(node.input[2]) if len(node.input) > 2 else None
        if values is not None and values.dtype == np.int32:
            count = int((np.abs(values.astype(np.int64)) >= limit).sum())
            if count:
                yield node.name, f"has {count} biases at the limit of 32 bits"


def group_scales(checked: Checked) -> Problems:
    """Want one weight scale for each group of a convolution that has several.

    ncnn, src/layer/convolutiondepthwise.cpp (weight_data_int8_scales).
    """
    for node, _, weight in checked.convolutions():
        group = attributes(node).get("group", 1)
        if group == 1 or weight.per_tensor:
            continue
        by_group = weight.scale.reshape(group, -1)
        if (by_group != by_group[:, :1]).any():
            yield node.name, f"has several weight scales in one of its {group} groups"


def float_biases(checked: Checked) -> Problems:
    """Want float biases: TensorRT's DequantizeLinear takes no 32-bit integers.

    TensorRT, "Explicit Quantization"; onnxruntime issue 14229.
    """
    for node in checked.nodes("Conv"):
        bias = checked.graph.dequantized(node.input[2]) if len(node.input) > 2 else None
        if bias is not None:
            yield node.name, f"has a bias dequantized from {bias.dtype}"


def narrow_biases(checked: Checked) -> Problems:
    """Want 8-bit biases with a scale of their own.

    AMD Quark for ONNX, XINT8 (Int32Bias false).
    """
    for node in checked.nodes("Conv"):
        if len(node.input) < 3 or not node.input[2]:
            continue
        bias = checked.graph.dequantized(node.input[2])
        if bias is None or bias.dtype != np.int8:
            yield node.name, f"has {_shown(bias)} bias, not int8"
