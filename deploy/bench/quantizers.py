"""From an FP32 graph and calibration images to an INT8 graph, by us and by others.

Each gets the same images, reads and prepares them by the same functions, and writes a file.
"""

import importlib.util
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from deploy.bench.work import input_reader
from deploy.calibration import Method, RangeConfig
from deploy.graph.profile import Profile
from deploy.progress import SilentProgress
from deploy.quantize import quantization
from deploy.quantize.calibration_source import CalibrationSource
from deploy.quantize.preparation import prepare
from deploy.quantize.recipe import RECIPES, RecipeName
from deploy.runtimes.openvino import load_openvino, openvino_core
from deploy.store.artifacts import Network
from deploy.targets import PROFILES, vendors

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


def _theirs(quantize: vendors.Quantize) -> Quantize:
    return lambda fp32, int8, source: quantize(fp32, int8, source.samples, input_reader(fp32))


def _nncf_openvino(fp32: Path, int8: Path, source: CalibrationSource) -> None:
    openvino = load_openvino()
    read = openvino_core().read_model(str(fp32))
    model = vendors.nncf(read, source.samples, input_reader(fp32))
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
            label="onnxruntime, MinMax", quantize=_theirs(vendors.onnxruntime_static("MinMax"))
        ),
        "onnxruntime-entropy": Quantizer(
            label="onnxruntime, Entropy",
            quantize=_theirs(vendors.onnxruntime_static("Entropy")),
            keeps_all=True,
        ),
        "onnxruntime-percentile": Quantizer(
            label="onnxruntime, Percentile",
            quantize=_theirs(vendors.onnxruntime_static("Percentile")),
            keeps_all=True,
        ),
        "nncf": Quantizer(
            label="NNCF, mixed, fast bias correction",
            quantize=_theirs(vendors.nncf_onnx),
            packages=("nncf",),
        ),
        "nncf-openvino": Quantizer(
            label="NNCF, the same of OpenVINO's own model",
            quantize=_nncf_openvino,
            packages=("nncf", "openvino"),
            suffix=".xml",
        ),
    }
)
