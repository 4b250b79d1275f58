"""From an FP32 graph and calibration images to an INT8 graph, by us and by others.

Each gets the same images, reads and prepares them by the same functions, and writes a file.
"""

import importlib
import importlib.util
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from deploy.bench.work import input_reader
from deploy.calibration import Method, RangeConfig
from deploy.calibration.preprocess import Float32Array
from deploy.calibration.voc import Sample
from deploy.graph.graph import Graph
from deploy.graph.profile import Profile
from deploy.graph.reading import read_graph
from deploy.progress import SilentProgress
from deploy.quantize import quantization
from deploy.quantize.calibration_source import CalibrationSource
from deploy.quantize.preparation import prepare
from deploy.quantize.recipe import RECIPES, RecipeName
from deploy.runtimes.openvino import load_openvino, openvino_core
from deploy.store.artifacts import Network
from deploy.targets import PROFILES

Quantize = Callable[[Path, Path, CalibrationSource], None]  # FP32 file, INT8 file, images


@dataclass(frozen=True, kw_only=True)
class Quantizer:
    """A tool and its settings."""

    label: str
    quantize: Quantize
    packages: tuple[str, ...] = ()  # that it needs besides our own
    keeps_all: bool = False  # every activation of every image stays in memory
    suffix: str = ".onnx"  # of what it writes; ".xml" is for OpenVINO alone

    @property
    def missing(self) -> list[str]:
        """The packages that it needs and that are not there."""
        return [name for name in self.packages if importlib.util.find_spec(name) is None]


def _ours(
    profile: Profile, method: Method = Method.MINMAX, recipe: RecipeName = RecipeName.PLAIN
) -> Quantize:
    def quantize(fp32: Path, int8: Path, source: CalibrationSource) -> None:
        progress, config = SilentProgress(), RangeConfig(method=method)
        with tempfile.TemporaryDirectory(dir=int8.parent) as folder:
            target = Network(name=fp32.stem, folder=Path(folder), given=fp32)
            prepared = prepare(target, source, None, progress)
            plan = quantization.plan(prepared, source, config, profile, RECIPES[recipe], progress)
            quantization.write_int8(prepared, plan, config, progress).path.replace(int8)

    return quantize


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """Hands onnxruntime one input at a time."""

    def __init__(self, fp32: Path, samples: list[Sample]) -> None:
        self.name = Graph(read_graph(fp32)).input.name
        self.inputs = map(input_reader(fp32), samples)

    def get_next(self) -> dict[str, Float32Array] | None:
        image = next(self.inputs, None)
        return None if image is None else {self.name: image}


def _onnxruntime(method: CalibrationMethod) -> Quantize:
    def quantize(fp32: Path, int8: Path, source: CalibrationSource) -> None:
        quantize_static(
            fp32,
            int8,
            _Reader(fp32, source.samples),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=method,
        )

    return quantize


def _nncf(model: Any, source: CalibrationSource, read: Callable[[Sample], Any]) -> Any:
    """Return a model of any of NNCF's kinds, quantized as its documentation has it for CPUs."""
    nncf = importlib.import_module("nncf")
    return nncf.quantize(
        model,
        nncf.Dataset(source.samples, read),
        preset=nncf.QuantizationPreset.MIXED,
        target_device=nncf.TargetDevice.CPU,
        subset_size=len(source.samples),
        fast_bias_correction=True,
    )


def _nncf_onnx(fp32: Path, int8: Path, source: CalibrationSource) -> None:
    model, read = read_graph(fp32), input_reader(fp32)
    name = Graph(model).input.name
    onnx.save(_nncf(model, source, lambda sample: {name: read(sample)}), int8)


def _nncf_openvino(fp32: Path, int8: Path, source: CalibrationSource) -> None:
    openvino = load_openvino()
    model = _nncf(openvino_core().read_model(str(fp32)), source, input_reader(fp32))
    openvino.save_model(model, str(int8), compress_to_fp16=False)


ORT = PROFILES["ort"]
AS_WRITTEN = replace(ORT, separable_pooling=False, direct_convolution=False)

QUANTIZERS: Mapping[str, Quantizer] = MappingProxyType(
    {
        "deploy-plain": Quantizer(label="deploy, minmax, plain", quantize=_ours(ORT)),
        "deploy-fast": Quantizer(
            label="deploy, minmax, fast", quantize=_ours(ORT, recipe=RecipeName.FAST)
        ),
        "deploy-entropy": Quantizer(
            label="deploy, entropy, plain", quantize=_ours(ORT, Method.ENTROPY)
        ),
        "deploy-no-rewrites": Quantizer(
            label="deploy, minmax, plain, no rewrites", quantize=_ours(AS_WRITTEN)
        ),
        "deploy-openvino": Quantizer(
            label="deploy, minmax, plain, for OpenVINO", quantize=_ours(PROFILES["openvino"])
        ),
        "onnxruntime-minmax": Quantizer(
            label="onnxruntime, MinMax", quantize=_onnxruntime(CalibrationMethod.MinMax)
        ),
        "onnxruntime-entropy": Quantizer(
            label="onnxruntime, Entropy",
            quantize=_onnxruntime(CalibrationMethod.Entropy),
            keeps_all=True,
        ),
        "onnxruntime-percentile": Quantizer(
            label="onnxruntime, Percentile",
            quantize=_onnxruntime(CalibrationMethod.Percentile),
            keeps_all=True,
        ),
        "nncf": Quantizer(
            label="NNCF, mixed, fast bias correction", quantize=_nncf_onnx, packages=("nncf",)
        ),
        "nncf-openvino": Quantizer(
            label="NNCF, the same of OpenVINO's own model",
            quantize=_nncf_openvino,
            packages=("nncf", "openvino"),
            suffix=".xml",
        ),
    }
)
