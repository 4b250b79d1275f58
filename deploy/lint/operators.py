"""Rules on where Q/DQ stand: which operators compute in 8 bits."""

from deploy.graph.activations import (
    ACTIVATIONS,
    QUANTIZABLE,
    activation_bounds,
    activations,
    fused_activation,
)
from deploy.graph.graph import opset
from deploy.graph.qdq import DEQUANTIZE, QUANTIZE, QdqGraph
from deploy.lint.checked import Checked, Problems
from deploy.runtimes.rockchip_graph import doubles

# Operators that TensorRT computes in 8 bits, or carries Q/DQ across.
TENSORRT_OPERATORS = {
    "Add",
    "AveragePool",
    "Concat",
    "Conv",
    "ConvTranspose",
    "Gemm",
    "GlobalAveragePool",
    "MatMul",
    "MaxPool",
    "Mul",
    "Reshape",
    "Transpose",
}


def float_inputs(checked: Checked) -> Problems:
    """Want all that an 8-bit operator takes dequantized.

    onnxruntime, qdq_selectors.cc (CheckQDQNodes); TensorRT, "Explicit Quantization". An Add may
    take one branch in float where the target adds in the convolution that makes it.
    """
    for node in checked.nodes(*QUANTIZABLE):
        names = activations(checked.graph, node)
        in_float = [name for name in names if checked.graph.dequantized(name) is None]
        if checked.profile.fuse_add and node.op_type == "Add":
            fusible = [name for name in in_float if _own_convolution(checked.graph, name)]
            in_float = [name for name in in_float if name not in fusible[:1]]
        for name in in_float:
            yield node.name, f"takes {name} in float: {node.op_type} computes in float"


def float_weights(checked: Checked) -> Problems:
    """Want a convolution's weight dequantized from 8 bits.

    onnxruntime, qdq_selectors.cc (ConvNodeGroupSelector); TensorRT, "Explicit Quantization".
    """
    for node in checked.nodes("Conv"):
        if checked.graph.dequantized(node.input[1]) is None:
            yield node.name, f"weight {node.input[1]} is float: the convolution computes in float"


def float_results(checked: Checked) -> Problems:
    """Want an operator's result to go to one QuantizeLinear, nowhere else, nor out of the graph.

    onnxruntime, qdq_selectors.cc (CheckQDQNodes).
    """
    for node in checked.nodes(*QUANTIZABLE):
        activation = fused_activation(checked.graph, node)
        name = (activation or node).output[0]
        if name in checked.graph.outputs:
            yield node.name, f"result {name} leaves the graph before it is quantized"
            continue
        takers = checked.graph.consumers[name]
        if in_float := [n.name for n in takers if n.op_type != QUANTIZE]:
            yield node.name, f"result {name} is taken in float by {in_float[0]}"
        elif len(takers) != 1:
            yield node.name, f"result {name} is quantized {len(takers)} times"


def separate_activations(checked: Checked) -> Problems:
    """Want a Relu or Clip done by the QuantizeLinear after it, not in float by itself.

    onnxruntime, qdq_util.cc (IsClipMadeRedundantByQ) and QNN pull request 21537: the values that q
    can stand for lie within its bounds.
    """
    for node in checked.nodes(*ACTIVATIONS):
        producer = checked.graph.producers.get(node.input[0])
        if producer is not None and producer.name in checked.kept_float:
            continue
        affine = checked.graph.quantized(node.output[0])
        if affine is None:
            if producer is None or fused_activation(checked.graph, producer) is not node:
                yield node.name, "computes in float: its result is not quantized at once"
            continue  # else the rule on results names the node before it
        if not affine.per_tensor:
            continue  # the rule on scales names it
        bounds = activation_bounds(checked.graph, node)
        if bounds is None or not affine.does_clip(*bounds):
            shown = f"{affine.bounds[0]:.4g} … {affine.bounds[1]:.4g}"
            yield node.name, f"is not done by the quantization after it, which covers {shown}"


def quantized_before_resize(checked: Checked) -> Problems:
    """Want no Q/DQ directly before a Resize.

    TensorRT issue 2976: it computes in float; Q/DQ belong behind it.
    """
    for node in checked.graph.model.graph.node:
        if node.op_type == "Resize" and checked.graph.dequantized(node.input[0]) is not None:
            yield node.name, f"takes {node.input[0]} dequantized"


def quantized_for_nothing(checked: Checked) -> Problems:
    """Want Q/DQ before what computes in 8 bits, not behind it.

    TensorRT, "Explicit Quantization", Q/DQ placement: quantize the inputs of weighted operations,
    not the outputs.
    """
    graph = checked.graph
    for node in graph.model.graph.node:
        if node.op_type != DEQUANTIZE or graph.before(node.output[0]) == node.output[0]:
            continue
        name = node.output[0]
        takers = {n.op_type for n in graph.consumers[name]}
        if not takers & (TENSORRT_OPERATORS | checked.profile.float_operators):
            shown = ", ".join(sorted(takers)) or "the graph's output"
            yield node.name, f"is taken by {shown} only"


def quantized_floats(checked: Checked) -> Problems:
    """Want none but convolutions to take what is dequantized: ncnn quantizes there alone.

    ncnn, src/layer/convolution.cpp (int8_scale_term).
    """
    graph = checked.graph
    for node in graph.model.graph.node:
        if node.op_type == "Conv":
            continue
        for name in dict.fromkeys(node.input):
            if graph.dequantized(name) is not None:
                yield node.name, f"takes {name} dequantized: {node.op_type} computes in float"
    for name in sorted(graph.outputs):
        if (node := graph.made_by(name, DEQUANTIZE)) is not None:
            yield node.name, "gives the graph's output"


def quantized_sums(checked: Checked) -> Problems:
    """Want an Add's branch that a convolution makes for it alone in float, to sum in that one.

    TensorRT, "Explicit Quantization", Q/DQ placement: quantize the residual input.
    """
    graph = checked.graph
    for node in checked.nodes("Add"):
        names = activations(graph, node)
        own = [name for name in names if _own_convolution(graph, name)]
        if own and all(graph.dequantized(name) is not None for name in own):
            source = graph.producers[graph.before(own[0])].name
            yield node.name, f"takes the result of {source} quantized: the two cannot be one"


def _own_convolution(graph: QdqGraph, name: str) -> bool:
    """Say whether a convolution makes the tensor, perhaps through Q/DQ, for one node alone."""
    source = graph.before(name)
    path = [name] if source == name else [name, source]
    alone = all(
        [n.input[:].count(p) for n in graph.consumers[p]] == [1] and p not in graph.outputs
        for p in path
    )
    return alone and graph.made_by(source, "Conv") is not None


def variable_shapes(checked: Checked) -> Problems:
    """Want an input of fixed size.

    onnxruntime, "QNN Execution Provider": no dynamic shapes.
    """
    if not checked.graph.has_fixed_shape:
        yield checked.graph.input.name, "has a size that is not fixed"


def old_pooling(checked: Checked) -> Problems:
    """Want an opset in which MaxPool takes 8-bit integers.

    ONNX, MaxPool-12.
    """
    version = opset(checked.graph.model)
    if version < 12:
        for node in checked.nodes("MaxPool"):
            yield node.name, f"is of opset {version}: it takes floats only"


def resizes_on_cpu(checked: Checked) -> Problems:
    """Want every Resize to be one that rknn-toolkit2 leaves on the NPU."""
    shapes = checked.graph.shapes
    for node in checked.graph.model.graph.node:
        if node.op_type != "Resize":
            continue
        given, made = (shapes.get(name, ())[2:] for name in (node.input[0], node.output[0]))
        if not doubles(given, made):
            sizes = " to ".join("x".join(map(str, each)) or "unknown" for each in (given, made))
            yield node.name, f"resizes {sizes} on the CPU"
