"""What stands in a bundle whatever it is for: model.json, labels.txt, golden.npz."""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from PIL import Image

from deploy.calibration.preprocess import MEAN, STD, Fit, fit_image, normalize
from deploy.calibration.scenes import draw_scene
from deploy.calibration.voc import UInt8Array
from deploy.errors import GraphError
from deploy.export.heads import run, wrap
from deploy.export.interface import Head, Interface
from deploy.graph.graph import Graph
from deploy.graph.half import emulate_half, has_half
from deploy.graph.metadata import read_metadata
from deploy.targets.accelerator import Precision

SCENE = 16  # of the drawn ones: six classes for the network, and colours matter to it
LAYOUTS = {Head.LOGITS: "NCHW", Head.UPSAMPLED: "NCHW", Head.LABELS: "NHW"}
FITS = {
    Fit.CROP: "scale the image to cover the size, cut out the centre",
    Fit.SQUASH: "scale the image to the size, whatever its aspect ratio",
    Fit.PAD: "scale the image to fit the size, pad right and bottom with 255 times the mean",
}


# Share of golden.npz's labels that another runtime shall give as well: it rounds in other places.
# Measured on rf-lw-mbv2 at 500x500: INT8 in OpenVINO 0.979, BGR for RGB 0.668.
AGREEMENT = {Precision.FP32: 0.999, Precision.FP16: 0.99, Precision.INT8: 0.9}


@dataclass(frozen=True, kw_only=True)
class Contents:
    """A graph that is to be bundled."""

    name: str  # the variant's id, or the file's
    precision: Precision
    path: Path  # of the plain graph
    plain: onnx.ModelProto  # float image in, logits out
    fit: Fit  # how images become its inputs
    interface: Interface

    @property
    def model(self) -> onnx.ModelProto:
        """The graph with its interface."""
        return self.plain if self.interface.is_plain else wrap(self.plain, self.interface)

    @property
    def title(self) -> str:
        """The bundle's name in its own files, such as rf-lw-mbv2-int8."""
        return f"{self.name}-{self.precision}"

    @property
    def classes(self) -> list[str]:
        """Names of the classes in the logits' order; raises GraphError if they are unknown."""
        names = read_metadata(self.plain).get("classes", "").split(",")
        output = Graph(self.plain).shapes.get(self.plain.graph.output[0].name, ())
        if len(output) != 4 or len(names) != output[1]:
            raise GraphError(
                "the graph does not name a class for each logit in its metadata (classes): "
                "bundle a graph that 'deploy export' made, or add them"
            )
        return names


def describe(contents: Contents) -> dict[str, Any]:
    """Return what model.json holds: what the model takes, how to make it, and what comes out."""
    model, interface = contents.model, contents.interface
    size = Graph(contents.plain).input_size
    (given,) = (v for v in model.graph.input if v.name == Graph(contents.plain).input.name)
    return {
        "name": contents.title,
        "precision": contents.precision.value,
        "graph_sha256": Graph(contents.plain).sha256,
        "input": {
            **_tensor(given),
            "layout": "NHWC" if interface.embed_preprocessing else "NCHW",
        },
        "preprocessing": {
            "colour_order": "RGB",
            "size": list(size),
            "fit": contents.fit.value,
            "fit_means": FITS[contents.fit],
            "resize": "bilinear; where it shrinks, over all pixels it covers (as Pillow does)",
            "normalized": "(value / 255 - mean) / std, channel by channel",
            "mean": list(MEAN),
            "std": list(STD),
            "normalized_by": "the model" if interface.embed_preprocessing else "you",
        },
        "output": {
            **_tensor(model.graph.output[0]),
            "layout": LAYOUTS[interface.head],
            "head": interface.head.value,
            "classes": "labels.txt",
        },
        "golden": {"file": "golden.npz", "agreement": AGREEMENT[contents.precision]},
    }


def golden_pixels(size: tuple[int, int]) -> UInt8Array:
    """Return the image of every golden pair, uint8 RGB (H, W, 3)."""
    jpeg, _ = draw_scene(seed=0, split="val", index=SCENE)
    return fit_image(np.asarray(Image.open(io.BytesIO(jpeg))), Fit.CROP, size)


def make_golden(contents: Contents) -> dict[str, NDArray[Any]]:
    """Return one input and the output that onnxruntime gives for it on a CPU, by tensor name.

    The image is a drawn scene; where the model takes normalized values, ``pixels`` are the bytes
    (1, H, W, 3) that they come from. Half precision is emulated, as everywhere here.
    """
    pixels = golden_pixels(Graph(contents.plain).input_size)
    plain = emulate_half(contents.plain) if has_half(contents.plain) else contents.plain
    model = plain if contents.interface.is_plain else wrap(plain, contents.interface)
    names = Graph(contents.plain).input.name, model.graph.output[0].name
    if contents.interface.embed_preprocessing:
        return {names[0]: pixels[None], names[1]: run(model, pixels[None])[0]}
    image = normalize(pixels)
    return {names[0]: image, names[1]: run(model, image)[0], "pixels": pixels[None]}


def common_files(
    contents: Contents, description: dict[str, Any], golden: dict[str, NDArray[Any]]
) -> dict[str, bytes | str]:
    """Return the files that every bundle has, but for README.md, check.py and SHA256SUMS."""
    archive = io.BytesIO()
    np.savez_compressed(archive, **golden)  # type: ignore[arg-type]
    return {
        "model.json": json.dumps(description, indent=1) + "\n",
        "labels.txt": "".join(f"{name}\n" for name in contents.classes),
        "golden.npz": archive.getvalue(),
    }


def _tensor(value: onnx.ValueInfoProto) -> dict[str, Any]:
    """Return name, type and shape of an input or output."""
    tensor = value.type.tensor_type
    return {
        "name": value.name,
        "type": np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name,
        "shape": [d.dim_value for d in tensor.shape.dim],
    }
