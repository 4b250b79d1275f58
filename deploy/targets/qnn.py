"""Qualcomm's HTP, by onnxruntime's QNN execution provider."""

from deploy.graph.profile import Profile
from deploy.lint.rules import FLOAT_OPERATOR, HTP
from deploy.runtimes.qnn import compile_context, find_chip
from deploy.runtimes.qnn_chips import CHIPS, DEFAULT_CHIP
from deploy.runtimes.runner import Runtime
from deploy.targets.accelerator import Accelerator, Bundled, Files, Part, Toolbox
from deploy.targets.vendors import VendorQuantizer, onnxruntime_qnn


def bundle(bundled: Bundled) -> Part:
    """Return the ONNX graph, and the same compiled for each chip: a context binary.

    Raises:
        DeployError: the provider is not installed, or a chip is not known.
        GraphError: HTP does not take the graph.
    """
    chips = [find_chip(name) for name in bundled.socs]
    files: Files = {"model.onnx": bundled.model.SerializeToString(deterministic=True)}
    for chip in chips:
        compiled = compile_context(bundled.model, chip)
        files |= {f"contexts/{name}": content for name, content in compiled.items()}
    names = ", ".join(f"{chip.name} (v{chip.arch})" for chip in chips)
    return Part(
        files=files,
        start=f"contexts/CHIP.onnx in onnxruntime with its QNN provider, compiled for {names}; "
        "model.onnx is compiled where it is loaded. CHIP_qnn.bin is the context binary itself, for "
        "QNN's own runtime",
        check=f"python3 check.py {chips[0].name}",
        note="no device was at hand; on x86, check.py runs in the emulator",
    )


QNN = Accelerator(
    name="qnn",
    runtime="Qualcomm HTP by onnxruntime's QNN execution provider",
    source="onnxruntime, 'QNN Execution Provider'; what its backend refuses, onnxruntime-qnn 2.7.0",
    profile=Profile(name="qnn"),
    rules=HTP,
    chips={name: () if chip.has_half else (FLOAT_OPERATOR,) for name, chip in CHIPS.items()},
    executed_by=Runtime.QNN,
    vendor=VendorQuantizer(
        label="onnxruntime's QNN configuration, MinMax, s8 weights per channel",
        quantize=onnxruntime_qnn,
    ),
    also_for=frozenset({"ort", "ort-arm", "openvino"}),
    toolchains={"qnn": Toolbox(title="Qualcomm HTP (QNN)", write=bundle, default_soc=DEFAULT_CHIP)},
)
