"""Reading ONNX graphs, and the questions that every stage asks of them."""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from calibration.errors import CalibrationError
from deploy.errors import DeployError, GraphError

LABELS_INSIDE = "; it gives labels: pass the graph without its ArgMax, which gives the logits"
SUMMARY = "quantization"  # metadata: which nodes were quantized and which not, as JSON
MINIMUM_OPSET = 13  # per-channel QuantizeLinear


def read_graph(path: Path) -> onnx.ModelProto:
    """Read and check an ONNX file; only that one file is opened.

    Raises:
        GraphError: it is missing, no valid ONNX, keeps its parameters in other files, or has a
            parameter that lacks values or holds NaN.
    """
    if not path.is_file():
        raise GraphError(f"no ONNX file at {path}: pass the path of one, or run 'deploy export'")
    try:
        model = onnx.load(path, load_external_data=False)
        for tensor in _tensors(model):
            _check_tensor(path, tensor)
        if opset(model) > onnx.defs.onnx_opset_version():
            raise GraphError(
                f"{path} is of opset {opset(model)}, but this onnx knows "
                f"{onnx.defs.onnx_opset_version()}: export it with an older one"
            )
        onnx.checker.check_model(model)
    except GraphError:
        raise
    except Exception as error:  # protobuf and onnx's C++ core raise what they like
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise GraphError(f"{path} is no valid ONNX graph: {reason}") from None
    return model


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file in what is raised inside about a graph and does not name it yet."""
    try:
        yield
    except (DeployError, CalibrationError) as error:
        if str(path) in str(error):
            raise
        raise type(error)(f"{path}: {error}") from None


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every constant of a model, also those in attributes, subgraphs and functions."""
    graphs = [model.graph]
    nodes = [node for function in model.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
            nodes.extend(graph.node)
            continue
        for attribute in nodes.pop().attribute:
            graphs.extend([attribute.g] if attribute.HasField("g") else [])
            graphs.extend(attribute.graphs)
            yield from [attribute.t] if attribute.HasField("t") else []
            yield from attribute.tensors


def _check_tensor(path: Path, tensor: onnx.TensorProto) -> None:
    """Refuse a constant that is in another file, lacks values, or holds NaN.

    Infinity may be meant where it is alone, the bound of a Clip, or below zeros, a mask.
    """
    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        raise GraphError(
            f"{path} keeps parameters in other files (external data): save it as one file"
        )
    try:
        itemsize = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        claimed = math.prod(tensor.dims) * itemsize
        if min(tensor.dims, default=0) < 0 or claimed > 16 * tensor.ByteSize():  # before it is made
            raise ValueError("it has fewer values than its shape")
        values = numpy_helper.to_array(tensor)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        shape = "x".join(map(str, tensor.dims))
        raise GraphError(
            f"{path} has a constant {tensor.name!r} of shape {shape or 'scalar'} that cannot be "
            f"read ({error}): export it anew"
        ) from None
    if not np.issubdtype(values.dtype, np.floating):
        return
    infinite = values.size > 1 and np.isinf(values).any()
    is_mask = infinite and np.isin(values, (0, -np.inf)).all()
    if np.isnan(values).any() or (infinite and not is_mask):
        raise GraphError(f"{path} has NaN or infinite values in {tensor.name!r}: export it anew")


def graph_sha256(model: onnx.ModelProto) -> str:
    """Return the SHA-256 of the serialized graph, in hexadecimal; metadata do not count."""
    return hashlib.sha256(model.graph.SerializeToString(deterministic=True)).hexdigest()


def read_metadata(model: onnx.ModelProto) -> dict[str, str]:
    """Return the graph's metadata by key."""
    return {entry.key: entry.value for entry in model.metadata_props}


def set_metadata(model: onnx.ModelProto, metadata: dict[str, str]) -> None:
    """Replace all metadata of ``model``, in place."""
    del model.metadata_props[:]
    for key, value in sorted(metadata.items()):
        model.metadata_props.add(key=key, value=value)


def with_node_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of ``model`` whose nodes all have a name of their own."""
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
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:], result.graph.initializer[:], result.graph.value_info[:]
    result.graph.node.extend(nodes)
    result.graph.initializer.extend([*kept, *added])
    return result


def without_unused_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop, in place, the initializers that no node takes; return ``model``."""
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model


def opset(model: onnx.ModelProto) -> int:
    """Return the version of the default operator set."""
    return next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)


@dataclass(frozen=True)
class Graph:
    """A read-only index of a graph: who makes, who takes, what shape, what constant."""

    model: onnx.ModelProto

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Static shape of every activation that has one."""
        try:
            inferred = onnx.shape_inference.infer_shapes(self.model).graph
        except Exception as error:  # onnx's C++ core raises what it likes
            raise GraphError(f"the graph's shapes contradict each other: {error}") from None
        shapes = {}
        for value in [*inferred.input, *inferred.value_info, *inferred.output]:
            dims = value.type.tensor_type.shape.dim
            if value.type.tensor_type.HasField("shape") and all(d.dim_value > 0 for d in dims):
                shapes[value.name] = tuple(d.dim_value for d in dims)
        return shapes

    @cached_property
    def constants(self) -> dict[str, NDArray[np.generic]]:
        """Value of every initializer."""
        return {t.name: numpy_helper.to_array(t) for t in self.model.graph.initializer}

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
