"""LiteRT (TensorFlow Lite): phones, boards, and what compiles its files."""

from typing import Any

import numpy as np

from deploy.errors import GraphError
from deploy.graph.profile import Profile
from deploy.lint.rules import CONCAT_SCALE, FIXED_SHAPE, NODE_GROUPS
from deploy.runtimes.litert_files import file_of
from deploy.runtimes.litert_model import translate
from deploy.runtimes.litert_tape import Borders
from deploy.runtimes.runner import Runtime
from deploy.targets.accelerator import Accelerator, Bundled, Part, Toolbox
from deploy.targets.litert_quantizer import ai_edge_quantizer
from deploy.targets.vendors import VendorQuantizer

START = '`ai_edge_litert.interpreter.Interpreter("model.tflite")`, or LiteRT\'s API on the device{}'
UINT8 = (
    "; its input is q = round(x / scale) + zero_point of the normalized image x, its output q of "
    "the logits: both scales are in model.json"
)


def bundle(bundled: Bundled) -> Part:
    """Return the network in LiteRT's form, written here; images are (1, H, W, C).

    Raises:
        DeployError: LiteRT is not installed: its package has the schema of the file.
        GraphError: LiteRT has no form of a node, or uint8 borders are wanted of a float graph.
    """
    if bundled.description["input"]["type"] != "float32" or (
        bundled.description["output"]["head"] == "labels"
    ):
        raise GraphError(
            "LiteRT takes normalized images and gives logits: leave out --head labels and "
            "--embed-preprocessing"
        )
    model = translate(bundled.model, bundled.borders)
    description = dict(bundled.description)
    golden = dict(bundled.golden)
    for side, index in (("input", model.input), ("output", model.output)):
        tensor, name = model.tensors[index], bundled.description[side]["name"]
        form: dict[str, Any] = {
            "shape": list(tensor.shape),
            "type": tensor.dtype.name,
            "layout": "NHWC",
        }
        golden[name] = np.ascontiguousarray(golden[name].transpose(0, 2, 3, 1))
        if (affine := tensor.quantization) is not None:
            scale, zero_point = float(affine.scale.item()), affine.zero_point
            form["quantization"] = {"scale": scale, "zero_point": zero_point}
            if side == "input":
                q = np.rint(golden[name] / affine.scale) + zero_point
                golden[name] = q.clip(0, 255).astype(np.uint8)
        description[side] = {**bundled.description[side], **form}
    return Part(
        files={"model.tflite": file_of(model)},
        start=START.format(UINT8 if bundled.borders is Borders.UINT8 else ""),
        check="python3 check.py",
        description=description,
        golden=golden,
    )


LITERT = Accelerator(
    name="litert",
    runtime="LiteRT",
    source="LiteRT 8-bit quantization specification",
    profile=Profile(name="litert", activation=np.int8, same_scale_average=True),
    rules=(*NODE_GROUPS, CONCAT_SCALE, FIXED_SHAPE),
    executed_by=Runtime.LITERT,
    also_for=frozenset({"ort-arm"}),
    vendor=VendorQuantizer(
        label="AI Edge Quantizer, static_wi8_ai8, min-max",
        quantize=ai_edge_quantizer,
        packages=("ai_edge_quantizer",),
    ),
    toolchains={"litert": Toolbox(title="LiteRT", write=bundle, has_borders=True)},
)
