"""Sessions of onnxruntime that get a graph's large constants beside it."""

import math
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import Message
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    import onnxruntime

LARGE_BYTES = 2**16  # of a constant that goes beside the graph
PLAIN = {
    *(onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE),
    *(onnx.TensorProto.INT8, onnx.TensorProto.UINT8),
    *(onnx.TensorProto.INT32, onnx.TensorProto.INT64),
}


def session_options(threads: int) -> "onnxruntime.SessionOptions":
    """Return the options of every session: no log (errors are raised), idle threads at rest.

    Threads that spin while they wait take the processors from torch and from other sessions.
    """
    import onnxruntime  # when a session is wanted: the options of commands need its module not

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def open_model(
    model: onnx.ModelProto | Path,
    options: "onnxruntime.SessionOptions",
    disabled: Collection[str] = (),
) -> "onnxruntime.InferenceSession":
    """Return a session of a graph, or of its file.

    Serialized whole, a graph of 600 MB takes seconds and is in memory twice more meanwhile.

    Args:
        model: not changed.
        options: of the session; they are given the constants of a graph.
        disabled: names of optimizations that shall not be.

    Raises:
        Exception: what onnxruntime raises; its exceptions share no public base class.
    """
    import onnxruntime

    large: dict[str, onnxruntime.OrtValue] = {}  # onnxruntime copies them when it makes the session
    source: str | bytes
    if isinstance(model, Path):
        source = str(model)
    else:
        skeleton, large = _apart(model)
        source = skeleton.SerializeToString()
        options.add_external_initializers(list(large), list(large.values()))
    return onnxruntime.InferenceSession(
        source, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(disabled)
    )


def _apart(model: onnx.ModelProto) -> tuple[onnx.ModelProto, "dict[str, onnxruntime.OrtValue]"]:
    """Return a copy in which large constants are elsewhere, and their values by name."""
    import onnxruntime

    skeleton = without_initializers(model)
    large = {}
    for tensor in model.graph.initializer:
        if tensor.data_type not in PLAIN or claimed_bytes(tensor) < LARGE_BYTES:
            skeleton.graph.initializer.append(tensor)
            continue
        outside = skeleton.graph.initializer.add(
            name=tensor.name,
            data_type=tensor.data_type,
            dims=tensor.dims,
            data_location=onnx.TensorProto.EXTERNAL,
        )
        outside.external_data.add(key="location", value="memory")
        values = numpy_helper.to_array(tensor)
        large[tensor.name] = onnxruntime.OrtValue.ortvalue_from_numpy(values)
    return skeleton, large


def without_initializers(model: onnx.ModelProto, *but: str) -> onnx.ModelProto:
    """Return a copy of a model that lacks its initializers, and other fields of the graph."""
    copy = onnx.ModelProto()
    _copy_fields(model, copy, ("graph",))
    _copy_fields(model.graph, copy.graph, ("initializer", *but))
    return copy


def _copy_fields(source: Message, target: Message, but: Collection[str]) -> None:
    for field, value in source.ListFields():
        if field.name in but:
            continue
        if isinstance(value, Message):
            getattr(target, field.name).CopyFrom(value)
        elif isinstance(value, str | bytes | int | float):
            setattr(target, field.name, value)
        else:
            getattr(target, field.name).extend(value)


def claimed_bytes(tensor: onnx.TensorProto) -> int:
    """Return how many bytes a constant has by its shape; raises KeyError for an unknown type."""
    itemsize = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return int(math.prod(tensor.dims) * itemsize)
