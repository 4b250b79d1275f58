"""Rockchip's NPUs: RK3566, RK3568, RK3576 and RK3588, by rknn-toolkit2."""

from deploy.calibration.preprocess import MEAN, STD
from deploy.graph.profile import Bias, Profile
from deploy.lint.rules import (
    CHANGED_SCALE,
    COMMON,
    CPU_RESIZE,
    FLOAT_BIAS,
    FLOAT_RESULT,
    WEIGHT_PER_CHANNEL,
    WEIGHT_ROOM,
)
from deploy.runtimes import rockchip
from deploy.runtimes.rockchip_graph import WEIGHT_MAX
from deploy.runtimes.runner import Runtime
from deploy.targets.accelerator import Accelerator, Bundled, Files, Part, Precision, Toolbox
from deploy.targets.render import render
from deploy.targets.sophgo import check_plain
from deploy.targets.vendors import VendorQuantizer, table_of

START = (
    "`python3 build.py CHIP`, with rknn-toolkit2 2.5.0 (`deploy toolchain install rockchip "
    "--accept-licence`), makes CHIP.rknn of model.onnx, {}, runs it on golden.npz's image in the "
    "simulator and writes output.npy. It takes bytes, RGB. CHIP is {}"
)


def bundle(bundled: Bundled) -> Part:
    """Return the graph as rknn-toolkit2 imports it, and what makes a chip's file of it.

    Raises:
        DeployError: it has another interface.
        GraphError: it is made for another runtime.
    """
    check_plain(bundled, "rknn-toolkit2")
    files: Files = {
        "model.onnx": rockchip.for_compiler(bundled.model).SerializeToString(deterministic=True),
        "build.py": render(
            "deploy.targets",
            "rockchip.py.j2",
            name=bundled.title,
            mean=[round(255 * value, 6) for value in MEAN],
            std=[round(255 * value, 6) for value in STD],
            chips=rockchip.CHIPS,
        ),
    }
    is_int8 = bundled.precision is Precision.INT8
    how = "whose Q/DQ hold its ranges and integers" if is_int8 else "which it computes in halves"
    return Part(
        files=files,
        start=START.format(how, ", ".join(rockchip.CHIPS)),
        check="python3 check.py output.npy",
        note="rknn-toolkit2 is under Rockchip's own licence; no board was at hand",
    )


ROCKCHIP = Accelerator(
    name="rockchip",
    runtime="Rockchip's NPU by rknn-toolkit2",
    source="rknn-toolkit2, 'User Guide' (QAT models); what rknn-toolkit2 2.5.0 makes of graphs",
    profile=Profile(name="rockchip", weight_max=WEIGHT_MAX, bias=Bias.FLOAT, convolve_resizes=True),
    rules=(*COMMON, WEIGHT_PER_CHANNEL, WEIGHT_ROOM, FLOAT_BIAS, FLOAT_RESULT, CHANGED_SCALE),
    chips=dict.fromkeys(rockchip.CHIPS, (CPU_RESIZE,)),
    executed_by=Runtime.ROCKCHIP,
    vendor=VendorQuantizer(
        label="rknn-toolkit2, its default (normal, per channel)",
        quantize=table_of(rockchip.calibrate),
        installed=rockchip.command,
    ),
    toolchains={"rockchip": Toolbox(title="Rockchip NPU (rknn-toolkit2)", write=bundle)},
)
