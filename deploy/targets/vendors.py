"""The toolchains' own quantizers, each as its documentation has it: what ours is measured against.

They get the same float graph and the same images, read and prepared by our functions.
"""

import importlib
import importlib.util
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from deploy.calibration.preprocess import Float32Array
from deploy.calibration.voc import Sample
from deploy.errors import DeployError
from deploy.graph.graph import Graph
from deploy.graph.metadata import CALIBRATION_TABLE, read_metadata, set_metadata
from deploy.graph.reading import read_graph

Read = Callable[[Sample], Float32Array]  # an image as a network's input (1, 3, H, W)
# (FP32 file, INT8 file to write, images, how they are read)
Quantize = Callable[[Path, Path, Sequence[Sample], Read], None]


@dataclass(frozen=True, kw_only=True)
class VendorQuantizer:
    """A toolchain's own way from the float graph to INT8."""

    label: str  # the tool and its settings
    quantize: Quantize
    packages: tuple[str, ...] = ()  # that it needs besides our own
    installed: Callable[[], object] | None = None  # raises DeployError where its toolchain is not

    def require(self) -> None:
        """Raise DeployError if a package or a toolchain is missing."""
        if self.installed is not None:
            self.installed()
        missing = [name for name in self.packages if importlib.util.find_spec(name) is None]
        if missing:
            raise DeployError(
                f"{self.label} is not installed: run 'pip install {' '.join(missing)}'"
            )


def table_of(calibrate: Callable[[Path, Sequence[Float32Array]], str]) -> Quantize:
    """Return what writes the float graph with a compiler's own ranges in its metadata.

    Args:
        calibrate: (FP32 file, inputs) -> its table.
    """

    def quantize(fp32: Path, int8: Path, samples: Sequence[Sample], read: Read) -> None:
        model = read_graph(fp32)
        table = calibrate(fp32, [read(sample) for sample in samples])
        set_metadata(model, read_metadata(model) | {CALIBRATION_TABLE: table})
        onnx.save(model, int8)

    return quantize


class _Reader:
    """Hands onnxruntime one input at a time (its CalibrationDataReader)."""

    def __init__(self, fp32: Path, inputs: Iterable[Float32Array]) -> None:
        self.name = Graph(read_graph(fp32)).input.name
        self.inputs = iter(inputs)

    def get_next(self) -> dict[str, Float32Array] | None:
        image = next(self.inputs, None)
        return None if image is None else {self.name: image}


def onnxruntime_static(method: str, activation: str = "QUInt8") -> Quantize:
    """Return onnxruntime's static quantizer ("Quantize ONNX models"), per channel.

    Args:
        method: how it calibrates: MinMax, Entropy, Percentile or Distribution.
        activation: QUInt8, or QInt8 where that is the fast form (ARM).
    """

    def quantize(fp32: Path, int8: Path, samples: Sequence[Sample], read: Read) -> None:
        from onnxruntime import quantization as tool  # takes a second

        tool.quantize_static(
            fp32,
            int8,
            _Reader(fp32, map(read, samples)),
            quant_format=tool.QuantFormat.QDQ,
            per_channel=True,
            activation_type=tool.QuantType[activation],
            weight_type=tool.QuantType.QInt8,
            calibrate_method=tool.CalibrationMethod[method],
        )

    return quantize


def onnxruntime_qnn(fp32: Path, int8: Path, samples: Sequence[Sample], read: Read) -> None:
    """Quantize as onnxruntime's "QNN Execution Provider" has it; per channel, its best here."""
    from onnxruntime import quantization as tool
    from onnxruntime.quantization.execution_providers import qnn

    model = read_graph(fp32)
    del model.metadata_props[:]  # its preprocessing stumbles over them
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder, "prepared.onnx")
        source = prepared if qnn.qnn_preprocess_model(model, prepared) else fp32
        config = qnn.get_qnn_qdq_config(
            source,
            _Reader(fp32, map(read, samples)),
            activation_type=tool.QuantType.QUInt8,
            weight_type=tool.QuantType.QInt8,
            per_channel=True,
        )
        tool.quantize(source, int8, config)


def nncf(model: Any, samples: Sequence[Sample], read: Callable[[Sample], Any]) -> Any:
    """Return a model of any of NNCF's kinds, quantized as its documentation has it for CPUs."""
    tool = importlib.import_module("nncf")
    return tool.quantize(
        model,
        tool.Dataset(samples, read),
        preset=tool.QuantizationPreset.MIXED,
        target_device=tool.TargetDevice.CPU,
        subset_size=len(samples),
        fast_bias_correction=True,
    )


def nncf_onnx(fp32: Path, int8: Path, samples: Sequence[Sample], read: Read) -> None:
    """Quantize an ONNX graph by NNCF, OpenVINO's own tool."""
    model = read_graph(fp32)
    name = Graph(model).input.name
    onnx.save(nncf(model, samples, lambda sample: {name: read(sample)}), int8)
