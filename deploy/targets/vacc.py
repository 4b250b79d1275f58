"""VACC: what vamc, its compiler, needs to make INT8 or FP16 of a graph, a folder with all of it.

It takes a float graph and writes its own format; for INT8 it calibrates on images and quantizes by
itself. The paths in its configuration are relative to the folder. Its recommended onnx 1.14.0 and
onnxruntime 1.13.1 refuse our opset and IR version: the graph that it gets is of opset 11, proved to
give the same numbers.
"""

import json
from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from deploy.calibration.preprocess import MEAN, STD
from deploy.calibration.ranges import Method, RangeConfig
from deploy.calibration.voc import Sample
from deploy.errors import DeployError, GraphError
from deploy.graph.graph import Graph, check_model
from deploy.graph.opset11 import as_opset_11
from deploy.graph.reading import naming
from deploy.runtimes.onnxruntime import OnnxRunner
from deploy.targets import vamc_options
from deploy.targets.accelerator import (
    Accelerator,
    Bundled,
    Files,
    FloatGraph,
    HandedOver,
    Handing,
    Part,
    Precision,
    Toolbox,
)

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
  dtype: {precision}
  compile:
    data_transport_mode: 1
{quantization}workspace:
  path: workspace
"""
# Of INT8 only: the zoo's configurations for FP16 have neither.
QUANTIZATION = """\
  quantize:
    calibrate_mode: {mode}
    quantize_per_channel: true
{options}dataset:
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
"""


def hand_over(given: FloatGraph) -> HandedOver:
    """Return what vamc is given: the graph, compile.yaml, preprocess.json; for INT8 the images.

    The images are copied, since vamc takes all that it finds in a folder; images.sha256 lists them.
    With a carrier, ranges.json has its ranges, which vamc does not read.

    Raises:
        GraphError: the graph does not take one image of a fixed size, or cannot be of opset 11.
        DeployError: vamc has no such calibration, or wants images of one kind.
    """
    is_int8 = given.precision is Precision.INT8
    mode = _mode(given.config) if is_int8 else None
    quantization = _quantization(given) if is_int8 else ""
    with naming(given.path):
        graph = Graph(as_opset_11(given.model))
        size = graph.input_size
        prove_same(given.model, graph.model)
    files: Files = {
        GRAPH: graph.model.SerializeToString(deterministic=True),
        "compile.yaml": _configuration(given, graph, quantization),
        "preprocess.json": _preprocessing(*size),
    }
    if given.ranges is not None:
        files["ranges.json"] = _ranges(given.ranges)
    if is_int8:
        suffix = _suffix(given.samples)
        files["images.sha256"] = "".join(
            f"{i.sha256}  {IMAGES}/{i.name}.{suffix}\n" for i in given.images
        )
        for sample in given.samples:
            files[f"{IMAGES}/{sample.name}.{suffix}"] = sample.image.read_bytes()
    return HandedOver(files=files, calibrate_mode=mode)


def prove_same(model: onnx.ModelProto, other: onnx.ModelProto) -> None:
    """See that a graph is valid and gives another's logits, bit for bit, for a seeded image.

    Raises:
        GraphError: it is not or does not, or onnxruntime cannot run one of them.
    """
    try:
        check_model(other, full=True)
    except Exception as error:  # onnx's C++ core raises what it likes
        reason = str(error).strip().splitlines()[0]
        raise GraphError(f"it is no valid graph of opset 11: {reason}") from None
    shape = (1, 3, *Graph(model).input_size)
    image = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    expected, found = (OnnxRunner(each)(image) for each in (model, other))  # one at a time
    if not np.array_equal(expected, found):
        difference = float(np.abs(expected - found).max())
        raise GraphError(
            f"in opset 11 the logits differ by {difference:.3g}: export the graph at opset 11"
        )


def bundle(bundled: Bundled) -> Part:
    """Return the files of a folder that ``deploy quantize --target vacc`` wrote for a precision."""
    files: Files = {
        path.relative_to(bundled.folder).as_posix(): path.read_bytes()
        for path in sorted(bundled.folder.rglob("*"))
        if path.is_file()
    }
    makes = "quantizes and compiles" if bundled.precision is Precision.INT8 else "compiles"
    return Part(
        files=files,
        start=f"`vamc compile compile.yaml` {makes}; the device's preprocessing is "
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


def _configuration(given: FloatGraph, graph: Graph, quantization: str) -> str:
    """Return compile.yaml; JSON strings and lists are YAML too."""
    height, width = graph.input_size
    return CONFIGURATION.format(
        name=json.dumps(given.name),
        graph=GRAPH,
        input=json.dumps(graph.input.name),
        height=height,
        width=width,
        precision=given.precision.value,
        quantization=quantization,
    )


def _quantization(given: FloatGraph) -> str:
    """Return the sections of compile.yaml that say how to quantize, and on which images."""
    height, width = Graph(given.model).input_size
    options = "".join(f"    {key}: {json.dumps(v)}\n" for key, v in given.options.items())
    return QUANTIZATION.format(
        mode=_mode(given.config),
        options=options,
        images=IMAGES,
        suffix=_suffix(given.samples),
        count=len(given.samples),
        height=height,
        width=width,
        mean=json.dumps(list(MEAN)),
        std=json.dumps(list(STD)),
    )


def _ranges(ranges: Mapping[str, tuple[float, float]]) -> str:
    """Return ranges.json: {tensor: [low, high]}, a line each."""
    lines = [f" {json.dumps(name)}: {json.dumps(ranges[name])}" for name in sorted(ranges)]
    return "{\n" + ",\n".join(lines) + "\n}\n"


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
    hand_over=Handing(
        precisions=(Precision.INT8, Precision.FP16),
        write=hand_over,
        check_options=vamc_options.check,
    ),
)
