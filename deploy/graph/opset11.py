"""A float graph in the form of 2019, opset 11 and IR version 6, for tools that take nothing newer.

Only what opset 11 means alike is taken over, node by node: a quantized graph never goes this way.
What changed since then is told by ONNX's own operator schemas (Operators.md, Changelog.md).
"""

import numpy as np
import onnx
from onnx import helper
from onnx.defs import OpSchema, SchemaError, get_schema

from deploy.errors import GraphError
from deploy.graph.graph import opset, with_nodes, without_unused_constants
from deploy.graph.names import Names

OPSET, IR_VERSION = 11, 6
STANDARD = ("", "ai.onnx")
# Of which later opsets changed only the types that they take, or added inputs and attributes that
# are not needed; that a node has none of these is checked.
UNCHANGED = frozenset(
    (
        *("Abs", "Add", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "Constant"),
        *("Conv", "ConvTranspose", "DepthToSpace", "Div", "Elu", "Erf", "Exp", "Expand", "Flatten"),
        *("Gather", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid", "Identity"),
        *("InstanceNormalization", "LRN", "LeakyRelu", "Log", "MatMul", "Max", "MaxPool", "Min"),
        *("Mul", "Neg", "PRelu", "Pad", "Pow", "Reciprocal", "Relu", "Reshape", "Resize", "Shape"),
        *("Sigmoid", "Slice", "Softplus", "SpaceToDepth", "Sqrt", "Sub", "Sum", "Tanh", "Tile"),
        *("Transpose", "Where"),
    )
)
LATER_VALUES = {b"half_pixel_symmetric", b"wrap"}  # of attributes that opset 11 has, too


def as_opset_11(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph in opset 11 and IR version 6; ``model`` is not changed.

    One of an older opset keeps it. Names of tensors and nodes stay; metadata of the model too.

    Raises:
        GraphError: a node is of an operator, or has an attribute or input, that opset 11 has not.
    """
    if model.functions:
        raise GraphError(
            f"the graph has a function of its own, {model.functions[0].name}: run 'deploy "
            "simplify', or export it without"
        )
    version = opset(model)
    nodes = [_node(node, version) for node in model.graph.node]
    constants = {}
    if any(node.op_type == "Resize" for node in nodes) and version > OPSET:
        names, none = Names(model), np.empty(0, np.float32)
        roi, scales = names.get("resize/no_roi"), names.get("resize/no_scales")
        constants = {roi: none, scales: none}
        for node in nodes:
            if node.op_type == "Resize":
                _fill_in(node, roi, scales)
    result = without_unused_constants(with_nodes(model, nodes, constants))
    result.ir_version = min(model.ir_version, IR_VERSION)
    del result.opset_import[:]
    result.opset_import.append(helper.make_opsetid("", min(version, OPSET)))
    del result.graph.metadata_props[:]
    return result


def _node(node: onnx.NodeProto, version: int) -> onnx.NodeProto:
    """Return a copy of a node as opset 11 has it; raises GraphError where it has no such node."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    del copy.metadata_props[:]
    label = f"node {node.name or node.output[0]} ({node.op_type})"
    remedy = f"export the graph at opset {OPSET}, or without that node"
    if node.domain not in STANDARD:
        raise GraphError(f"{label} is of {node.domain}, not of ONNX: {remedy}")
    if any(a.HasField("g") or a.graphs for a in node.attribute):
        raise GraphError(f"{label} holds a graph of its own: {remedy}")
    if version <= OPSET:
        return copy
    try:
        old, new = get_schema(node.op_type, OPSET), get_schema(node.op_type, version)
    except SchemaError:
        raise GraphError(f"opset {OPSET} has no operator of {label}: {remedy}") from None
    if old.since_version != new.since_version and node.op_type not in UNCHANGED:
        raise GraphError(f"{label} means something else in opset {OPSET}: {remedy}")
    if len(node.input) > old.max_input or len(node.output) > old.max_output:
        raise GraphError(f"{label} takes or gives more than in opset {OPSET}: {remedy}")
    del copy.attribute[:]
    for attribute in node.attribute:
        if attribute.name not in old.attributes and not _is_default(attribute, new):
            raise GraphError(f"{label} has {attribute.name}, unknown in opset {OPSET}: {remedy}")
        if attribute.s in LATER_VALUES:
            value = attribute.s.decode()
            raise GraphError(f"{label} is {value}, unknown in opset {OPSET}: {remedy}")
        if attribute.name in old.attributes:
            copy.attribute.append(attribute)
    return copy


def _is_default(attribute: onnx.AttributeProto, schema: OpSchema) -> bool:
    """Say whether an attribute has the value that its absence has: what older opsets mean."""
    default = schema.attributes[attribute.name].default_value
    if default.type == onnx.AttributeProto.UNDEFINED:
        return False
    value: object = helper.get_attribute_value(attribute)
    return bool(value == helper.get_attribute_value(default))


def _fill_in(node: onnx.NodeProto, roi: str, scales: str) -> None:
    """Give a Resize, in place, empty tensors for inputs left out: opset 11 wants both named."""
    given = [*node.input, "", ""][: max(3, len(node.input))]
    node.input[:] = [given[0], given[1] or roi, given[2] or scales, *given[3:]]
