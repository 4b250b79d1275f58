"""Torch to ONNX, proved equal on a seeded input."""

import ast
import logging
import warnings
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnxscript.optimizer import optimize_ir
from torch import nn

from deploy.calibration.preprocess import Float32Array
from deploy.errors import ExportError
from deploy.graph.graph import check_model
from deploy.runtimes.onnxruntime import OnnxRunner
from deploy.runtimes.torch import TorchRunner

OPSET = 18  # the exporter's own; what TensorRT 8.6, OpenVINO and QNN all read
ANY_SIZE = 2**31  # elements of a constant
TOLERANCE = 1e-3  # largest difference allowed, as a share of the logits' range
INPUT, OUTPUT = "image", "logits"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How far two networks' logits are apart, in the logits' unit."""

    maximum: float
    mean: float
    logits_range: float

    @property
    def relative(self) -> float:
        """Largest difference as a share of the logits' range."""
        return self.maximum / self.logits_range if self.logits_range else self.maximum

    def __str__(self) -> str:
        return (
            f"max {self.maximum:.3g}, mean {self.mean:.3g} "
            f"({self.relative:.1e} of the logits' range {self.logits_range:.4g})"
        )


def export_onnx(module: nn.Module, size: tuple[int, int]) -> onnx.ModelProto:
    """Trace ``module`` at a fixed 1x3xHxW and return a checked graph.

    Batch normalization is folded into the convolutions; nodes that hold a parameter are named after
    its module. Input ``image``, output ``logits``, opset 18.

    Raises:
        ExportError: a batch normalization is left in the graph.
    """
    # The exporter logs that torchvision's operators are missing; none is used here.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its own deprecated internals
        program = torch.onnx.export(
            module,
            (torch.zeros(1, 3, *size),),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
    assert program is not None
    if any(node.op_type == "BatchNormalization" for node in program.model.graph):
        # A weight that is computed of others is folded, and may be folded into, whatever its size.
        optimize_ir(program.model, input_size_limit=ANY_SIZE, output_size_limit=ANY_SIZE)
    model: onnx.ModelProto = program.model_proto
    for value in program.model.graph.initializers.values():
        value.const_value = None  # the exporter holds its last program until the next one
    _name_after_modules(model)
    del model.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]  # the exporter's notes hold source paths of this machine
    if any(node.op_type == "BatchNormalization" for node in model.graph.node):
        raise ExportError("the exporter left a batch normalization unfolded: report it as a bug")
    check_model(model, full=True)
    return model


def seeded_image(size: tuple[int, int]) -> Float32Array:
    """Return the input (1, 3, H, W) on which networks are compared."""
    return np.random.default_rng(0).standard_normal((1, 3, *size), dtype=np.float32)


def compare_with_torch(
    found: onnx.ModelProto | Float32Array, module: nn.Module, size: tuple[int, int]
) -> Difference:
    """Return the difference between a graph's and torch's logits for the seeded image.

    Args:
        found: the graph, or the logits that it gives for that image.
        module: torch's network.
        size: of the image.

    Raises:
        ExportError: it exceeds :data:`TOLERANCE` of the logits' range.
    """
    image = seeded_image(size)
    expected = TorchRunner(module)(image)
    logits = OnnxRunner(found)(image) if isinstance(found, onnx.ModelProto) else found
    return prove_equal(expected, logits, "torch and the exported graph")


def prove_equal(expected: Float32Array, found: Float32Array, what: str) -> Difference:
    """Return the difference of two arrays of logits; raises ExportError beyond the tolerance."""
    if expected.shape != found.shape:
        raise ExportError(f"{what} differ in shape: {expected.shape} and {found.shape}")
    absolute = np.abs(expected - found)
    difference = Difference(
        maximum=float(absolute.max()),
        mean=float(absolute.mean()),
        logits_range=float(np.ptp(expected)),
    )
    if not difference.relative <= TOLERANCE:  # also true for NaN
        raise ExportError(f"{what} differ by {difference}: at most {TOLERANCE:g} is accepted")
    return difference


def _name_after_modules(model: onnx.ModelProto) -> None:
    """Rename, in place, each convolution and its output to the module that holds its weight."""
    taken = {value.name for value in model.graph.output}
    renamed: dict[str, str] = {}
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = renamed.get(name, name)
        module_name = _module_name(node) if node.op_type == "Conv" else ""
        if module_name and module_name not in taken:
            taken.add(module_name)
            node.name = module_name
            if node.output[0] not in taken:
                renamed[node.output[0]] = module_name
                node.output[0] = module_name
    del model.graph.value_info[:]  # names changed; shape inference fills it anew


def _module_name(node: onnx.NodeProto) -> str:
    """Return the module of a convolution's weight; of a computed one, the module that it is in."""
    weight: str = node.input[1]
    if weight.endswith(".weight"):
        return weight.removesuffix(".weight")
    notes = {note.key: note.value for note in node.metadata_props}
    _, *modules, _ = ast.literal_eval(notes.get("pkg.torch.onnx.name_scopes", "['', '']"))
    return str(modules[-1]) if modules else ""
