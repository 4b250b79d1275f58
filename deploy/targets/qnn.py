"""Qualcomm's HTP, by onnxruntime's QNN execution provider."""

from deploy.graph.profile import Profile
from deploy.lint.rules import FIXED_SHAPE, NODE_GROUPS
from deploy.targets.accelerator import Accelerator

QNN = Accelerator(
    name="qnn",
    runtime="Qualcomm HTP by onnxruntime's QNN execution provider",
    source="onnxruntime, 'QNN Execution Provider'; onnxruntime-qnn issue 739",
    profile=Profile(name="qnn"),
    rules=(*NODE_GROUPS, FIXED_SHAPE),
    also_for=frozenset({"ort", "ort-arm", "openvino"}),
)
