"""onnxruntime on ARM, where signed activations are the fast form."""

import numpy as np

from deploy.graph.profile import Profile
from deploy.lint.rules import NODE_GROUPS
from deploy.runtimes.runner import Runtime
from deploy.targets.accelerator import Accelerator

ORT_ARM = Accelerator(
    name="ort-arm",
    runtime="onnxruntime on ARM",
    source="onnxruntime, 'Quantize ONNX models' (S8S8 where it is the fast form)",
    profile=Profile(name="ort-arm", activation=np.int8),
    rules=NODE_GROUPS,
    executed_by=Runtime.ONNXRUNTIME,
    on_arm=True,
)
