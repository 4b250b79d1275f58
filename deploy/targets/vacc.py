"""VACC: what vamc, its compiler, needs to quantize a graph by itself, a folder with all of it.

It takes the float graph, calibrates on images and writes its own format; the paths in its
configuration are relative to the folder.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deploy.calibration.preprocess import MEAN, STD
from deploy.calibration.ranges import Method, RangeConfig
from deploy.calibration.record import CalibrationImage
from deploy.calibration.voc import Sample
from deploy.errors import DeployError
from deploy.graph.graph import Graph
from deploy.targets.accelerator import Accelerator, Bundled, Files, HandedOver, Part, Toolbox

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


def hand_over(
    name: str,
    fp32: Path,
    graph: Graph,
    samples: Sequence[Sample],
    images: Sequence[CalibrationImage],
    config: RangeConfig | None,
) -> HandedOver:
    """Return what vamc is given: the graph, compile.yaml, preprocess.json, the images.

    The images are copied, since vamc takes all that it finds in a folder; images.sha256 lists them.

    Raises:
        GraphError: the graph does not take one image of a fixed size.
        DeployError: vamc has no such calibration, or wants images of one kind.
    """
    mode, suffix = _mode(config), _suffix(samples)
    files: Files = {
        GRAPH: fp32.read_bytes(),
        "compile.yaml": _configuration(name, graph, len(samples), mode, suffix),
        "preprocess.json": _preprocessing(*graph.input_size),
        "images.sha256": "".join(f"{i.sha256}  {IMAGES}/{i.name}.{suffix}\n" for i in images),
    }
    for sample in samples:
        files[f"{IMAGES}/{sample.name}.{suffix}"] = sample.image.read_bytes()
    return HandedOver(files=files, calibrate_mode=mode)


def bundle(bundled: Bundled) -> Part:
    """Return the files of a folder that ``deploy quantize --target vacc`` wrote."""
    files: Files = {
        path.relative_to(bundled.folder).as_posix(): path.read_bytes()
        for path in sorted(bundled.folder.rglob("*"))
        if path.is_file()
    }
    return Part(
        files=files,
        start="`vamc compile compile.yaml` quantizes and compiles; the device's preprocessing is "
        "preprocess.json; save what it gives for golden.npz's image with numpy as output.npy",
        check="python3 check.py output.npy",
        note="vamc was not at hand: it has not been run",
    )


def _mode(config: RangeConfig | None) -> str:
    """Return vamc's name for a way to choose ranges."""
    if config is None:
        return DEFAULT_MODE
    if config.method not in MODES:
        known = ", ".join(MODES)
        raise DeployError(f"vacc has no calibration {config.method.value!r}: use one of {known}")
    return MODES[config.method]


def _suffix(samples: Sequence[Sample]) -> str:
    """Return the one suffix of the images, which is all that vamc looks for."""
    suffixes = sorted({sample.image.suffix.removeprefix(".") for sample in samples})
    if len(suffixes) > 1:
        raise DeployError(
            f"vacc takes images of one kind, but these are {' and '.join(suffixes)}: convert some"
        )
    return suffixes[0]


def _configuration(name: str, graph: Graph, count: int, mode: str, suffix: str) -> str:
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
        count=count,
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


VACC = Accelerator(
    name="vacc",
    runtime="vamc",
    source="VACC model zoo, configurations of its segmentation networks",
    toolchains={"vacc": Toolbox(title="VACC", write=bundle)},
    hand_over=hand_over,
)
