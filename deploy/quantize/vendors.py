"""What a toolchain's own quantizer makes of the same float graph and images, to be compared."""

import json
import logging
import tempfile
from dataclasses import replace
from pathlib import Path

import onnx

from deploy.calibration import preprocess
from deploy.calibration.preprocess import Float32Array
from deploy.calibration.voc import Sample, read_image
from deploy.errors import GraphError
from deploy.graph.metadata import CALIBRATION_TABLE, read_metadata
from deploy.graph.reading import read_graph
from deploy.progress import Progress
from deploy.quantize.calibration_source import CalibrationSource
from deploy.quantize.preparation import Prepared
from deploy.quantize.quantization import find_quantized, write_quantized
from deploy.quantize.written import QuantizedGraph, Summary
from deploy.targets import vendor_name
from deploy.targets.accelerator import Accelerator

QUANTIZER = "quantizer"  # of a graph's metadata: what made it, where that was not ours


def find_vendors(
    prepared: Prepared, accelerator: Accelerator, key: str, progress: Progress, *, force: bool
) -> QuantizedGraph | None:
    """Return the graph if it is there and bears the seal of ``key``, unless forced."""
    name = vendor_name(accelerator.name)
    found = None if force else find_quantized(prepared, name, key, progress)
    if found is None or accelerator.vendor is None:
        return None
    return replace(found, quantizer=accelerator.vendor.label)


def write_vendors(
    prepared: Prepared,
    accelerator: Accelerator,
    source: CalibrationSource,
    progress: Progress,
    key: str,
) -> QuantizedGraph:
    """Write ``int8-<target>-vendor.onnx``, with the seal of ``key``.

    Raises:
        GraphError: the other quantizer fails on the graph.
    """
    vendor, name = accelerator.vendor, vendor_name(accelerator.name)
    assert vendor is not None
    fit, size = prepared.calibration.key.fit, prepared.graph.input_size

    def read(sample: Sample) -> Float32Array:
        return preprocess(read_image(sample.image), fit, size)

    with progress.step(f"{name} {prepared.target.name}"):
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder, "int8.onnx")
            logging.disable(logging.WARNING)  # their advice is not ours
            try:
                vendor.quantize(prepared.target.fp32, made, source.samples, read)
            except Exception as error:  # another tool's, of whatever kind
                reason = " ".join(str(error).split())[:200]
                raise GraphError(
                    f"{vendor.label} fails on {prepared.target.fp32}: {reason}"
                ) from error
            finally:
                logging.disable(logging.NOTSET)
            model: onnx.ModelProto = read_graph(made)
        metadata = {
            "precision": "int8",
            "target": accelerator.name,
            QUANTIZER: vendor.label,
            "calibration_images": json.dumps([i.sha256 for i in prepared.calibration.key.images]),
        }
        kept = read_metadata(model)
        metadata |= {key: kept[key] for key in (CALIBRATION_TABLE,) if key in kept}
        count = sum(node.op_type == "Conv" for node in model.graph.node)
        summary = Summary(quantized_nodes=count, kept_float={})
        written = write_quantized(prepared, name, model, summary, metadata, key)
        return replace(written, quantizer=vendor.label)
