"""Vendors' toolchains that tests run where they are installed."""

import importlib.util

import pytest

from deploy.errors import DeployError
from deploy.toolchains.arm import require_arm
from deploy.toolchains.install import find_installed


def is_installed(toolchain: str) -> bool:
    """Say whether a toolchain that tests run is there."""
    try:
        require_arm() if toolchain == "arm" else find_installed(toolchain)
    except DeployError:
        return False
    return True


needs_qnn = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime_qnn") is None,
    reason="onnxruntime-qnn is not installed: pip install '.[qnn]' (Qualcomm's licence)",
)
needs_ncnn = pytest.mark.skipif(
    importlib.util.find_spec("ncnn") is None, reason="ncnn is not installed: pip install '.[ncnn]'"
)
needs_litert = pytest.mark.skipif(
    importlib.util.find_spec("ai_edge_quantizer") is None,
    reason="LiteRT and its quantizer are not installed: pip install '.[litert]'",
)
needs_sophgo = pytest.mark.skipif(
    not is_installed("sophgo"),
    reason="toolchain sophgo is not installed: deploy toolchain install sophgo",
)
needs_rockchip = pytest.mark.skipif(
    not is_installed("rockchip"),
    reason="toolchain rockchip is not installed: deploy toolchain install rockchip "
    "--accept-licence (Rockchip's licence)",
)
needs_k230 = pytest.mark.skipif(
    not is_installed("k230"),
    reason="toolchain k230 is not installed: deploy toolchain install k230",
)
needs_arm = pytest.mark.skipif(
    not is_installed("arm"),
    reason="toolchain arm is not installed: deploy toolchain install arm (and apt's qemu-user)",
)
