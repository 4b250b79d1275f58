"""Reading ONNX files with the doubt that a file from elsewhere deserves."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from deploy.calibration.errors import CalibrationError
from deploy.calibration.onnx_session import claimed_bytes
from deploy.errors import DeployError, GraphError
from deploy.graph.graph import check_model, opset


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
        check_model(model)
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
        claimed = claimed_bytes(tensor)
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
