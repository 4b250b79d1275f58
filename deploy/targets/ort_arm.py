"""onnxruntime on ARM, where signed activations are the fast form."""

import numpy as np

from deploy.graph.profile import Profile
from deploy.lint.rules import NODE_GROUPS
from deploy.runtimes.runner import Runtime
from deploy.targets.accelerator import Accelerator, Bundled, Part, Toolbox
from deploy.targets.vendors import VendorQuantizer, onnxruntime_static

START = (
    'model.onnx in onnxruntime, `providers=["CPUExecutionProvider"]`: its own kernels for this '
    "form, on every 64-bit ARM processor"
)


def bundle(bundled: Bundled) -> Part:
    """Return the ONNX graph."""
    return Part(
        files={"model.onnx": bundled.model.SerializeToString(deterministic=True)},
        start=START,
        check="python3 check.py",
    )


ORT_ARM = Accelerator(
    name="ort-arm",
    runtime="onnxruntime on ARM",
    source="onnxruntime, 'Quantize ONNX models' (S8S8 where it is the fast form)",
    profile=Profile(name="ort-arm", activation=np.int8),
    rules=NODE_GROUPS,
    executed_by=Runtime.ONNXRUNTIME_ARM,
    vendor=VendorQuantizer(
        label="onnxruntime, MinMax, S8S8 per channel",
        quantize=onnxruntime_static("MinMax", "QInt8"),
    ),
    toolchains={"ort-arm": Toolbox(title="onnxruntime on ARM", write=bundle)},
)
