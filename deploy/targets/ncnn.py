"""ncnn: phones and boards, ARM and x86."""

import numpy as np

from deploy.errors import GraphError
from deploy.graph.profile import Bias, Profile
from deploy.lint.rules import COMMON, FLOAT_BIAS, FLOAT_OPERANDS, GROUP_SCALE, ZERO_POINT
from deploy.runtimes.ncnn_model import translate
from deploy.runtimes.runner import Runtime
from deploy.targets.accelerator import Accelerator, Bundled, Part, Precision, Toolbox

START = (
    'net.load_param("model.param"), net.load_model("model.bin"), input blob {}, output blob {}. '
)
HOW = {
    Precision.INT8: "Convolutions compute in 8 bits. On ARM what is float between them is stored "
    "as halves unless net.opt.use_fp16_packed, _storage and _arithmetic are false",
    Precision.FP16: "Weights are halves; net.opt.use_fp16_arithmetic, true by default, computes in "
    "them where the processor can",
    Precision.FP32: "net.opt.use_fp16_packed, _storage and _arithmetic false keep it from halves",
}


def bundle(bundled: Bundled) -> Part:
    """Return ncnn's two files, written here.

    Raises:
        GraphError: ncnn has no form of a node.
    """
    if bundled.description["input"]["type"] != "float32" or (
        bundled.description["output"]["head"] == "labels"
    ):
        raise GraphError(
            "ncnn takes float images and gives logits: leave out --head labels and "
            "--embed-preprocessing"
        )
    model = translate(bundled.model)
    return Part(
        files={"model.param": model.param, "model.bin": model.bin},
        start=START.format(model.input, model.output) + HOW[bundled.precision],
        check="python3 check.py",
    )


NCNN = Accelerator(
    name="ncnn",
    runtime="ncnn",
    source="ncnn, 'Post Training Quantization Tools', 'operators'; src/layer/convolution.cpp",
    profile=Profile(
        name="ncnn",
        activation=np.int8,
        symmetric=True,
        group_scale=True,
        bias=Bias.FLOAT,
        quantize_results=False,
        float_operators=frozenset({"Add", "AveragePool", "Concat", "MaxPool", "Resize"}),
    ),
    rules=(*COMMON, ZERO_POINT, FLOAT_BIAS, FLOAT_OPERANDS, GROUP_SCALE),
    executed_by=Runtime.NCNN,
    also_for=frozenset({"openvino"}),
    toolchains={"ncnn": Toolbox(title="ncnn", write=bundle)},
)
