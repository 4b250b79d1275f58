"""LiteRT (TensorFlow Lite): phones, boards, and what compiles its files."""

import numpy as np

from deploy.graph.profile import Profile
from deploy.lint.rules import NODE_GROUPS
from deploy.runtimes.runner import Runtime
from deploy.targets.accelerator import Accelerator
from deploy.targets.litert_quantizer import ai_edge_quantizer
from deploy.targets.vendors import VendorQuantizer

LITERT = Accelerator(
    name="litert",
    runtime="LiteRT",
    source="LiteRT 8-bit quantization specification",
    profile=Profile(name="litert", activation=np.int8),
    rules=NODE_GROUPS,
    executed_by=Runtime.LITERT,
    also_for=frozenset({"ort-arm"}),
    vendor=VendorQuantizer(
        label="AI Edge Quantizer, static_wi8_ai8, min-max",
        quantize=ai_edge_quantizer,
        packages=("ai_edge_quantizer",),
    ),
)
