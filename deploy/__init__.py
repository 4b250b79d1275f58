"""From a RefineNet checkpoint to FP16 and INT8 ONNX, with the accuracy cost measured.

>>> import deploy
>>> deploy.export("rf-lw-mbv2")               # artifacts/rf-lw-mbv2/fp32.onnx
>>> deploy.quantize(["rf-lw-mbv2"])           # fp16.onnx, int8.onnx, calibration.json
>>> deploy.validate(["rf-lw-mbv2"])           # mIoU of torch and of every graph
>>> deploy.report()                           # artifacts/report/report.{json,md,html}

A function, and the libraries that it needs, are loaded when it is first used.
"""

import os
import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from deploy.errors import DeployError, ExportError, GraphError, ReportError

if TYPE_CHECKING:
    from deploy.bundle.build import bundle
    from deploy.inspect.inspection import inspect
    from deploy.inspect.latency import latency
    from deploy.pipeline.exporting import export, simplify
    from deploy.pipeline.linting import lint
    from deploy.pipeline.measuring import report, validate
    from deploy.pipeline.quantizing import calibrate, merge_calibration, quantize
    from deploy.pipeline.whole import export_all
    from deploy.predict.predict import predict

# Torch's threads must not spin while they wait: onnxruntime runs in between. Read when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

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
_ROOMS = {
    "bundle": "bundle.build",
    "calibrate": "pipeline.quantizing",
    "export": "pipeline.exporting",
    "export_all": "pipeline.whole",
    "inspect": "inspect.inspection",
    "latency": "inspect.latency",
    "lint": "pipeline.linting",
    "merge_calibration": "pipeline.quantizing",
    "predict": "predict.predict",
    "quantize": "pipeline.quantizing",
    "report": "pipeline.measuring",
    "simplify": "pipeline.exporting",
    "validate": "pipeline.measuring",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from deploy.pipeline.arguments import takes_plain

    function = takes_plain(getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name))
    setattr(sys.modules[__name__], name, function)
    return function


class _Package(ModuleType):
    """The package, in which ``deploy.export`` stays the function when its room is imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _ROOMS or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
