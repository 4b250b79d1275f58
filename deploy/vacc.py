"""What vamc, VACC's compiler, needs to quantize a graph by itself: a folder with all of it.

It takes the float graph, calibrates on images and writes its own format; the paths in its
configuration are relative to the folder.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calibration.preprocess import MEAN, STD
from calibration.ranges import Method, RangeConfig
from deploy.artifacts import Target
from deploy.calibration_source import CalibrationSource
from deploy.errors import DeployError
from deploy.files import write_folder_whole
from deploy.graph import Graph, read_graph
from deploy.heads import refuse_wrapped
from deploy.targets import VACC

GRAPH, IMAGES = "fp32.onnx", "images"
# vamc's own choice where none is made.
DEFAULT_MODE = "kl_divergence"
MODES = {
    Method.MINMAX: "max",
    Method.PERCENTILE: "percentile",
    Method.ENTROPY: "kl_divergence",
    Method.MSE: "mse",
}
CONFIGURATION = """\
name: {name}
frontend:
  type: onnx
  checkpoint: {graph}
  shape:
    {input}: [1, 3, {height}, {width}]
  dtype: fp32
backend:
  type: tvm_vacc
  dtype: int8
  compile:
    data_transport_mode: 1
  quantize:
    calibrate_mode: {mode}
    quantize_per_channel: true
dataset:
  type: tvm
  path: {images}
  sampler:
    suffix: {suffix}
    get_data_num: {count}
  process_ops:
    - type: DecodeImage
    - type: Resize
      size: [{height}, {width}]
    - type: Normalize
      mean: {mean}
      std: {std}
    - type: ToTensor
workspace:
  path: workspace
"""


@dataclass(frozen=True, kw_only=True)
class VaccRecipe:
    """What was written for vamc."""

    target: str
    path: Path  # of the folder
    size_bytes: int
    images: int  # that calibrate
    calibrate_mode: str


def write_vacc(target: Target, source: CalibrationSource, config: RangeConfig | None) -> VaccRecipe:
    """Write ``vacc/`` beside a float graph: the graph, compile.yaml, preprocess.json, the images.

    The images are copied, since vamc takes all that it finds in a folder; images.sha256 lists them.

    Raises:
        GraphError: the graph cannot be read or does not take one image of a fixed size.
        DeployError: the folder cannot be written, or vamc has no such calibration.
    """
    model = read_graph(target.fp32)
    refuse_wrapped(model, target.fp32, "vamc takes the graph without these")
    graph = Graph(model)
    mode = _mode(config)
    suffix = _suffix(source)
    content: dict[str, bytes | str] = {
        GRAPH: target.fp32.read_bytes(),
        "compile.yaml": _configuration(target.name, graph, source, mode, suffix),
        "preprocess.json": _preprocessing(*graph.input_size),
        "images.sha256": "".join(
            f"{i.sha256}  {IMAGES}/{i.name}.{suffix}\n" for i in source.images
        ),
    }
    for sample in source.samples:
        content[f"{IMAGES}/{sample.name}.{suffix}"] = sample.image.read_bytes()
    path = target.folder / VACC
    size_bytes = write_folder_whole(path, content)
    return VaccRecipe(
        target=target.name,
        path=path,
        size_bytes=size_bytes,
        images=len(source.samples),
        calibrate_mode=mode,
    )


def _mode(config: RangeConfig | None) -> str:
    """Return vamc's name for a way to choose ranges."""
    if config is None:
        return DEFAULT_MODE
    if config.method not in MODES:
        known = ", ".join(MODES)
        raise DeployError(f"vacc has no calibration {config.method.value!r}: use one of {known}")
    return MODES[config.method]


def _suffix(source: CalibrationSource) -> str:
    """Return the one suffix of the images, which is all that vamc looks for."""
    suffixes = sorted({sample.image.suffix.removeprefix(".") for sample in source.samples})
    if len(suffixes) > 1:
        raise DeployError(
            f"vacc takes images of one kind, but these are {' and '.join(suffixes)}: convert some"
        )
    return suffixes[0]


def _configuration(
    name: str, graph: Graph, source: CalibrationSource, mode: str, suffix: str
) -> str:
    """Return compile.yaml; JSON strings and lists are YAML too."""
    height, width = graph.input_size
    return CONFIGURATION.format(
        name=json.dumps(name),
        graph=GRAPH,
        input=json.dumps(graph.input.name),
        height=height,
        width=width,
        mode=mode,
        images=IMAGES,
        suffix=suffix,
        count=len(source.samples),
        mean=json.dumps(list(MEAN)),
        std=json.dumps(list(STD)),
    )


def _preprocessing(height: int, width: int) -> str:
    """Return preprocess.json: the operator that makes an input of an image on the device."""
    config = {
        "IimageFormat": "RGB_PLANAR",
        "IimageWidth": width,
        "IimageHeight": height,
        "OimageWidth": width,
        "OimageHeight": height,
        "IimageWidthPitch": width,
        "IimageHeightPitch": height,
        "Mean": _halves(MEAN),
        "Std": _halves(STD),
        "NormaType": "DIV255_MINUSMEAN_DIVSTD",
        "ColorCvtCode": "NO_CHANGE",
        "ResizeType": "BILINEAR_CV",
    }
    operator = {"OpType": "FUSION_OP_RGB_RESIZE_CVTCOLOR_NORM_TENSOR", "OpConfig": config}
    return json.dumps(operator, indent=2) + "\n"


def _halves(values: Sequence[float]) -> list[float]:
    """Return values rounded to half precision, in which the operator computes."""
    return [float(np.float16(value)) for value in values]
