"""Vendors' toolchains that tests run where they are installed."""

import importlib.util

import pytest

needs_qnn = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime_qnn") is None,
    reason="onnxruntime-qnn is not installed: pip install '.[qnn]' (Qualcomm's licence)",
)
needs_ncnn = pytest.mark.skipif(
    importlib.util.find_spec("ncnn") is None, reason="ncnn is not installed: pip install '.[ncnn]'"
)
