"""Reading ONNX graphs, and the questions that every stage asks of them."""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from deploy.calibration.onnx_session import without_initializers
from deploy.errors import GraphError

LABELS_INSIDE = "; it gives labels: pass the graph without its ArgMax, which gives the logits"
SMALL_BYTES = 2**16  # of a constant that is kept as an array
LARGEST_SHAPE = 64  # elements of a constant that may be a shape
MINIMUM_OPSET = 13  # per-channel QuantizeLinear


def with_node_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``model`` if its nodes all have a name of their own, else a copy where they do."""
    names = {node.name for node in model.graph.node}
    if "" not in names and len(names) == len(model.graph.node):
        return model
    named = onnx.ModelProto()
    named.CopyFrom(model)
    taken: set[str] = set()
    for i, node in enumerate(named.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{i}"
        taken.add(node.name)
    return named


def count_ops(model: onnx.ModelProto) -> dict[str, int]:
    """Return the number of nodes by operator, the most frequent first."""
    return dict(Counter(node.op_type for node in model.graph.node).most_common())


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Return the node's attributes by name, as plain values."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def with_nodes(
    model: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, NDArray[Any]] | None = None,
) -> onnx.ModelProto:
    """Return a copy of ``model`` with other nodes, and initializers replaced or added.

    Shapes that were written down inside the graph are dropped: they may no longer hold.
    """
    constants = constants or {}
    kept = [t for t in model.graph.initializer if t.name not in constants]
    added = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    return rebuilt(model, nodes, [*kept, *added])


def rebuilt(
    model: onnx.ModelProto,
    nodes: Iterable[onnx.NodeProto],
    initializers: Iterable[onnx.TensorProto],
) -> onnx.ModelProto:
    """Return a copy of ``model`` with other nodes and initializers, and without inner shapes."""
    result = without_initializers(model, "node", "value_info")
    result.graph.node.extend(nodes)
    result.graph.initializer.extend(initializers)
    return result


def without_unused_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop, in place, the initializers that no node takes; return ``model``."""
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model


def without_large_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy in which constants whose values no shape depends on are inputs."""
    copy, source = without_initializers(model), model.graph
    graph = copy.graph
    given = {value.name for value in source.input}
    for tensor in source.initializer:
        if math.prod(tensor.dims) <= LARGEST_SHAPE:
            graph.initializer.append(tensor)
        elif tensor.name not in given:
            info = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            graph.input.append(info)
    return copy


def check_model(model: onnx.ModelProto, *, full: bool = False) -> None:
    """Check a model as onnx does, which would copy it with all its constants.

    Of large ones it learns type and shape; whether their values are as many,
    deploy/graph/reading.py sees.

    Args:
        model: not changed.
        full: infer shapes, too.

    Raises:
        Exception: what onnx raises.
    """
    onnx.checker.check_model(without_large_constants(model), full_check=full)


def inferred_values(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Return the type and shape of every activation, inputs first, as far as onnx infers them.

    Raises:
        Exception: what onnx raises where they contradict each other.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    # onnx holds what it is given three times over, for seconds where that is large
    graph = onnx.shape_inference.infer_shapes(without_large_constants(model)).graph
    values = [*graph.input, *graph.value_info, *graph.output]
    return [value for value in values if value.name not in weights]


def fixed_shapes(values: Iterable[onnx.ValueInfoProto]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every value that has a fixed one, by name."""
    shapes = {}
    for value in values:
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(d.dim_value > 0 for d in dims):
            shapes[value.name] = tuple(d.dim_value for d in dims)
    return shapes


@contextmanager
def giving(model: onnx.ModelProto, tensors: Iterable[str]) -> Iterator[onnx.ModelProto]:
    """Enclose work on a model with other outputs, without a copy of it; they get no type."""
    outputs = list(model.graph.output)
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(tensors))
    try:
        yield model
    finally:
        del model.graph.output[:]
        model.graph.output.extend(outputs)


def opset(model: onnx.ModelProto) -> int:
    """Return the version of the default operator set."""
    return next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)


class Constants(Mapping[str, NDArray[np.generic]]):
    """Values of initializers by name; large ones are made anew each time, and not held."""

    def __init__(self, tensors: Iterable[onnx.TensorProto]) -> None:
        self._tensors = {tensor.name: tensor for tensor in tensors}
        self._small: dict[str, NDArray[np.generic]] = {}

    def __getitem__(self, name: str) -> NDArray[np.generic]:
        if name in self._small:
            return self._small[name]
        value = numpy_helper.to_array(self._tensors[name])
        if value.nbytes < SMALL_BYTES:
            self._small[name] = value
        return value

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


@dataclass(frozen=True)
class Graph:
    """A read-only index of a graph: who makes, who takes, what shape, what constant."""

    model: onnx.ModelProto

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the serialized graph, in hexadecimal; metadata do not count."""
        return hashlib.sha256(self.model.graph.SerializeToString(deterministic=True)).hexdigest()

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Static shape of every activation that has one."""
        try:
            values = inferred_values(self.model)
        except Exception as error:  # onnx's C++ core raises what it likes
            raise GraphError(f"the graph's shapes contradict each other: {error}") from None
        return fixed_shapes(values)

    @cached_property
    def constants(self) -> "Constants":
        """Value of every initializer."""
        return Constants(self.model.graph.initializer)

    @cached_property
    def producers(self) -> dict[str, onnx.NodeProto]:
        """The node that makes each tensor."""
        return {name: node for node in self.model.graph.node for name in node.output}

    @cached_property
    def consumers(self) -> dict[str, list[onnx.NodeProto]]:
        """The nodes that take each tensor."""
        consumers = defaultdict(list)
        for node in self.model.graph.node:
            for name in dict.fromkeys(node.input):
                consumers[name].append(node)
        return consumers

    def only_consumer(self, name: str, op_type: str) -> onnx.NodeProto | None:
        """Return the node that alone takes a tensor if it is of a type, or None."""
        consumers = self.consumers[name]
        alone = len(consumers) == 1 and name not in self.outputs
        return consumers[0] if alone and consumers[0].op_type == op_type else None

    def made_by(self, name: str, op_type: str) -> onnx.NodeProto | None:
        """Return the node that makes a tensor if it is of a type, or None."""
        node = self.producers.get(name)
        return node if node is not None and node.op_type == op_type else None

    @cached_property
    def depths(self) -> dict[str, int]:
        """Number of nodes on the longest path to each tensor that a node makes."""
        depths: dict[str, int] = {}
        for node in self.model.graph.node:  # in topological order, as ONNX has it
            depth = 1 + max((depths.get(name, 0) for name in node.input), default=0)
            depths |= dict.fromkeys(node.output, depth)
        return depths

    @cached_property
    def outputs(self) -> frozenset[str]:
        """Names of the graph's outputs."""
        return frozenset(value.name for value in self.model.graph.output)

    @cached_property
    def input(self) -> onnx.ValueInfoProto:
        """The graph's only input that is no initializer; raises GraphError if there are more."""
        inputs = [v for v in self.model.graph.input if v.name not in self.constants]
        if len(inputs) != 1:
            raise GraphError(f"the graph has {len(inputs)} inputs: one image is expected")
        image: onnx.ValueInfoProto = inputs[0]
        return image

    def check_float(self) -> None:
        """Refuse what cannot be quantized: subgraphs, several outputs, an input that is no image.

        Raises:
            GraphError: it is so.
        """
        for node in self.model.graph.node:
            if any(a.HasField("g") or a.graphs for a in node.attribute):
                raise GraphError(
                    f"node {node.name} ({node.op_type}) holds a graph of its own: run 'deploy "
                    "simplify', or export it without"
                )
        if len(self.outputs) != 1:
            raise GraphError(f"the graph has {len(self.outputs)} outputs: the logits are expected")
        self.check_output()
        kind = self.input.type.tensor_type.elem_type
        if kind != onnx.TensorProto.FLOAT:
            name = onnx.TensorProto.DataType.Name(kind)
            raise GraphError(f"the graph's input {self.input.name} is {name}: FLOAT is expected")
        if any(t.data_type == onnx.TensorProto.FLOAT16 for t in self.model.graph.initializer):
            raise GraphError(
                "the graph computes in half precision: pass the float32 graph that it was made from"
            )
        _ = self.input_size

    def check_output(self) -> None:
        """Refuse a graph whose first output is of integers: labels, where logits are wanted.

        Raises:
            GraphError: it is so.
        """
        for value in self.model.graph.output[:1]:
            name = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)
            if "INT" in name:
                raise GraphError(f"the graph's output {value.name} is {name}{LABELS_INSIDE}")

    @cached_property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the input image; raises GraphError unless it is (1, 3, H, W)."""
        dims = self.input.type.tensor_type.shape.dim
        shape = tuple(d.dim_value for d in dims)
        if len(shape) != 4 or shape[:2] != (1, 3) or not math.prod(shape):
            shown = "x".join(d.dim_param or str(d.dim_value) for d in dims)
            raise GraphError(
                f"the graph's input {self.input.name} is {shown or 'without a shape'}: a fixed "
                "1x3xHxW is expected; export it with a fixed size"
            )
        return shape[2], shape[3]

    def size_or(self, open_size: tuple[int, int]) -> tuple[int, int]:
        """Return height and width of the input image, or ``open_size`` where they are not fixed.

        Raises:
            GraphError: the input is no image of 3 planes, or a batch of several.
        """
        dims = [d.dim_value for d in self.input.type.tensor_type.shape.dim]
        is_image = len(dims) == 4 and dims[0] in (0, 1) and dims[1] in (0, 3)
        if is_image and 0 in dims:
            return open_size if 0 in dims[2:] else (dims[2], dims[3])
        return self.input_size
