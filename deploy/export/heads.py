"""What an integrator wants at a graph's borders: bytes of an image in, labels out.

A last step on any of our graphs, float or quantized. Quantization starts from the plain graph.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from deploy.calibration.preprocess import normalization, normalize, resize_logits
from deploy.errors import ExportError, GraphError
from deploy.export.interface import Head, Interface
from deploy.graph.graph import MINIMUM_OPSET, Graph, check_model, opset, with_nodes
from deploy.graph.metadata import read_metadata, set_metadata
from deploy.graph.reading import read_graph
from deploy.runtimes.sessions import open_session
from deploy.store.environment import default_threads
from deploy.store.files import write_whole
from deploy.store.reuse import SEAL

TOLERANCE = 1e-5  # of the logits' range: what another order of a resize's four products may change
EMBEDDED, OUTSIDE = "embedded", "outside"
NORMALIZED, RESIZED = "preprocessing/normalized", "head/resized"
FLOAT, UINT8 = TensorProto.FLOAT, TensorProto.UINT8


def wrap(model: onnx.ModelProto, interface: Interface) -> onnx.ModelProto:
    """Return ``model`` with an interface; what lies between is not changed.

    Args:
        model: takes a normalized image, float32 (1, 3, H, W), gives logits, float32 (1, C, h, w).
        interface: the output is named after its head, the input as it was.

    Raises:
        GraphError: the graph takes or gives something else, or is older than opset 13.
    """
    graph = Graph(model)
    refuse_wrapped(model, Path("the graph"), "wrap the plain graph")
    check_plain(graph)
    if opset(model) < MINIMUM_OPSET:
        raise GraphError(
            f"the graph is of opset {opset(model)}: convert it with onnx.version_converter to "
            f"{MINIMUM_OPSET} or later"
        )
    (height, width), classes = graph.input_size, graph.shapes[model.graph.output[0].name][1]
    if interface.head is Head.LABELS and classes > 256:
        raise GraphError(f"{classes} classes have no labels in 8 bits: take --head upsampled")
    nodes, constants = [*model.graph.node], dict[str, NDArray[Any]]()
    if interface.embed_preprocessing:
        first, constants = _preprocessing(graph.input.name)
        nodes = [*first, *(_renamed(node, graph.input.name, NORMALIZED) for node in nodes)]
    if interface.head is not Head.LOGITS:
        constants["head/size"] = np.array([1, classes, height, width], dtype=np.int64)
        nodes += _head(interface.head, model.graph.output[0].name)
    added = [n.name for n in nodes if n.name.startswith(("preprocessing/", "head/"))]
    wrapped = with_nodes(model, nodes, constants)
    body, name, head = wrapped.graph, graph.input.name, interface.head.value
    if interface.embed_preprocessing:
        del body.input[:]
        body.input.append(helper.make_tensor_value_info(name, UINT8, (1, height, width, 3)))
    if interface.head is Head.UPSAMPLED:
        del body.output[:]
        shape: tuple[int, ...] = (1, classes, height, width)
        body.output.append(helper.make_tensor_value_info(head, FLOAT, shape))
    elif interface.head is Head.LABELS:
        del body.output[:]
        body.output.append(helper.make_tensor_value_info(head, UINT8, (1, height, width)))
    set_metadata(wrapped, _metadata(read_metadata(model), interface, added))
    check_model(wrapped, full=True)
    return wrapped


def prove_wrapped(model: onnx.ModelProto, wrapped: onnx.ModelProto, interface: Interface) -> None:
    """See that a wrapped graph gives what ``model`` between our own steps gives, on a seeded image.

    Logits may differ by ``TOLERANCE`` of their range; labels are the largest of the graph's own
    resized logits, pixel for pixel.

    Raises:
        ExportError: it gives something else.
    """
    size = Graph(model).input_size
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    normalized = normalize(image)
    (logits,) = run(model, normalized)
    expected = logits[0] if interface.head is Head.LOGITS else resize_logits(logits[0], size)
    probe = onnx.ModelProto()
    probe.CopyFrom(wrapped)
    if interface.head is Head.LABELS:
        probe.graph.output.append(helper.make_tensor_value_info(RESIZED, FLOAT, None))
    outputs = run(probe, image[None] if interface.embed_preprocessing else normalized)
    difference = float(np.abs(outputs[-1][0] - expected).max())
    tolerance = TOLERANCE * float(np.ptp(logits))
    if not difference <= tolerance:  # also true for NaN
        raise ExportError(
            f"the graph with head {interface.head} is {difference:.3g} from the plain one's logits "
            f"where {tolerance:.3g} is accepted: report it as a bug"
        )
    if interface.head is Head.LABELS and (outputs[0] != outputs[1].argmax(axis=1)).any():
        raise ExportError("the graph's labels are not its largest logits: report it as a bug")


def write_wrapped(path: Path, interface: Interface) -> Path | None:
    """Write the graph at ``path`` with an interface beside it, proved; None for the plain one.

    Raises:
        GraphError, ExportError, DeployError: it cannot be read, wrapped, or written.
    """
    if interface.is_plain:
        return None
    model = read_graph(path)
    wrapped = wrap(model, interface)
    prove_wrapped(model, wrapped, interface)
    write_whole(interface.path(path), wrapped.SerializeToString(deterministic=True))
    return interface.path(path)


def refuse_wrapped(model: onnx.ModelProto, path: Path, what: str) -> None:
    """Refuse a graph that :func:`wrap` made where the plain one is wanted; raises GraphError."""
    metadata = read_metadata(model)
    if "head" in metadata and "preprocessing" in metadata:  # one alone is another tool's
        raise GraphError(
            f"{path} is made for a device (head {metadata['head']}, preprocessing "
            f"{metadata.get('preprocessing')}): {what}"
        )


def run(model: onnx.ModelProto, image: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the outputs of a graph with one input, in onnxruntime on the CPU."""
    session = open_session(model, default_threads())
    outputs: list[NDArray[Any]] = session.run(None, {session.get_inputs()[0].name: image})
    return outputs


def check_plain(graph: Graph) -> None:
    """Refuse a graph that is not one normalized image in, logits out; raises GraphError."""
    model = graph.model
    graph.input_size  # noqa: B018 - raises
    types = [v.type.tensor_type.elem_type for v in (graph.input, *model.graph.output)]
    if types != [FLOAT, FLOAT] or len(graph.shapes.get(model.graph.output[0].name, ())) != 4:
        raise GraphError(
            "the graph does not give float32 logits (1, classes, h, w) of one float32 image: pass "
            "one that 'deploy' made, or one like it"
        )


def _preprocessing(name: str) -> tuple[list[onnx.NodeProto], dict[str, NDArray[Any]]]:
    """Return what turns bytes (1, H, W, 3) into the normalized (1, 3, H, W), and its constants.

    The multiplication and addition are :func:`normalize`'s own, bit for bit. In the first
    convolution they would not be: its padding is zeros, which the mean is not. Bytes go by way of
    halves, which hold each of them: TensorRT wants bytes cast to half or float before anything
    else, and HTP's emulator makes 1.0 of every byte but 0 where they are cast to float at once
    (onnxruntime-qnn 2.7.0).
    """
    scale, shift = (values.reshape(1, 3, 1, 1) for values in normalization())
    steps: list[tuple[str, str, list[str], dict[str, Any]]] = [
        ("CastHalf", "Cast", [], {"to": TensorProto.FLOAT16}),
        ("CastFloat", "Cast", [], {"to": FLOAT}),
        ("Transpose", "Transpose", [], {"perm": [0, 3, 1, 2]}),  # N, H, W, C -> N, C, H, W
        ("Mul", "Mul", ["preprocessing/scale"], {}),
        ("Add", "Add", ["preprocessing/shift"], {}),
    ]
    nodes = []
    for step, op_type, constant, values in steps:
        label = f"preprocessing/{step}"
        result = NORMALIZED if op_type == "Add" else f"{label}_result"
        nodes.append(helper.make_node(op_type, [name, *constant], [result], name=label, **values))
        name = result
    return nodes, {"preprocessing/scale": scale, "preprocessing/shift": shift}


def _renamed(node: onnx.NodeProto, old: str, new: str) -> onnx.NodeProto:
    """Return a copy that takes ``new`` where ``node`` takes ``old``."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = [new if name == old else name for name in node.input]
    return copy


def _head(head: Head, logits: str) -> list[onnx.NodeProto]:
    """Return the nodes from logits to what a head gives."""
    resized = head.value if head is Head.UPSAMPLED else RESIZED
    node = helper.make_node
    nodes = [
        node(
            "Resize",
            [logits, "", "", "head/size"],
            [resized],
            name="head/Resize",
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        )
    ]
    if head is Head.LABELS:
        nodes += [
            node("ArgMax", [resized], ["head/index"], name="head/ArgMax", axis=1, keepdims=0),
            # By way of float: TensorRT casts nothing else to bytes.
            node("Cast", ["head/index"], ["head/class"], name="head/CastFloat", to=FLOAT),
            node("Cast", ["head/class"], [head.value], name="head/Cast", to=UINT8),
        ]
    return nodes


def _metadata(
    metadata: Mapping[str, str], interface: Interface, added: list[str]
) -> dict[str, str]:
    """Return a wrapped graph's metadata; of an 8-bit graph, what was added is float on purpose."""
    result = {
        **{key: value for key, value in metadata.items() if key != SEAL},  # the plain graph's
        "head": interface.head.value,
        "preprocessing": EMBEDDED if interface.embed_preprocessing else OUTSIDE,
    }
    if metadata.get("precision") == "int8":
        kept = json.loads(metadata.get("kept_float", "[]"))
        result["kept_float"] = json.dumps(sorted([*kept, *added]))
    return result
