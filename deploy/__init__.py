"""From a RefineNet checkpoint to FP16 and INT8 ONNX, with the accuracy cost measured.

>>> import deploy
>>> deploy.export("rf-lw-mbv2")               # artifacts/rf-lw-mbv2/fp32.onnx
>>> deploy.quantize(["rf-lw-mbv2"])           # fp16.onnx, int8.onnx, calibration.json
>>> deploy.validate(["rf-lw-mbv2"])           # mIoU of torch and of every graph
>>> deploy.report()                           # artifacts/report/report.{json,md,html}
"""

import os

# Torch's threads must not spin while they wait: onnxruntime runs in between. Read when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from deploy.bundle import bundle
from deploy.errors import DeployError, ExportError, GraphError, ReportError
from deploy.inspection import inspect
from deploy.latency import latency
from deploy.pipeline import (
    calibrate,
    export,
    export_all,
    lint,
    merge_calibration,
    quantize,
    report,
    simplify,
    validate,
)
from deploy.predict import predict

__all__ = [
    "DeployError",
    "ExportError",
    "GraphError",
    "ReportError",
    "bundle",
    "calibrate",
    "export",
    "export_all",
    "inspect",
    "latency",
    "lint",
    "merge_calibration",
    "predict",
    "quantize",
    "report",
    "simplify",
    "validate",
]
