"""An activation behind a concatenation stands before it, where what makes the parts takes it over.

A quantizer has one range for all parts of a Concat. Behind their ReLUs that range begins at 0, and
half of the steps are not spent on values that nobody looks at.
"""

import onnx
from onnx import helper

from deploy.graph.graph import Graph, with_nodes
from deploy.graph.names import Names


def with_activations_before_concat(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph in which a Relu that alone takes a Concat's result is one for each part."""
    graph, names = Graph(model), Names(model)
    moved = {
        concat.name or concat.output[0]: relu
        for concat in model.graph.node
        if (relu := _relu_behind(graph, concat)) is not None
    }
    if not moved:
        return model
    gone = {relu.output[0] for relu in moved.values()}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        relu = moved.get(node.name or node.output[0]) if node.op_type == "Concat" else None
        if relu is not None:
            nodes += _rectified(node, relu, names)
        elif node.op_type != "Relu" or node.output[0] not in gone:
            nodes.append(node)
    return with_nodes(model, nodes)


def _relu_behind(graph: Graph, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """Return the Relu that alone takes a Concat's result, where no part is a constant."""
    if node.op_type != "Concat" or any(name in graph.constants for name in node.input):
        return None
    return graph.only_consumer(node.output[0], "Relu")


def _rectified(concat: onnx.NodeProto, relu: onnx.NodeProto, names: Names) -> list[onnx.NodeProto]:
    """Return a Relu for each part, and the Concat of these under the name of the Relu's result."""
    parts = {name: names.get(f"{name}_to_{concat.output[0]}") for name in concat.input}
    copy = onnx.NodeProto()
    copy.CopyFrom(concat)
    copy.input[:] = [parts[name] for name in concat.input]
    copy.output[0] = relu.output[0]
    made = [
        helper.make_node("Relu", [name], [part], name=names.get(f"{part}/Relu"))
        for name, part in parts.items()
    ]
    return [*made, copy]
