"""Each target's graph in its own accelerator's arithmetic, with the parameters that ship.

A small input and drawn scenes: what a change costs a target is seen here first. The least that is
asked lies below what was measured (docs/targets.md), so that rounding alone does not fail it.
"""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

import deploy
from deploy import models
from deploy.calibration.scenes import write_scenes
from deploy.runtimes.runner import Runtime
from deploy.targets import ACCELERATORS, int8_name, vendor_name

pytestmark = pytest.mark.long
VARIANT = models.DEFAULT_VARIANT
PACKAGES = {
    Runtime.OPENVINO: "openvino",
    Runtime.QNN: "onnxruntime_qnn",
    Runtime.NCNN: "ncnn",
    Runtime.LITERT: "ai_edge_quantizer",
}
# target -> agreement with torch, SQNR in dB, and dB above the vendor's own quantizer; at least
LEAST = {
    "ort": (0.975, 26.0, 2.0),
    "ort-avx2": (0.965, 24.5, None),
    "openvino": (0.975, 26.0, None),
    "qnn": (0.975, 26.0, 2.0),
    "ncnn": (0.975, 26.0, None),
    "litert": (0.975, 26.0, 3.0),
}


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the scenes, and artifacts with every target's graph from one calibration."""
    folder = tmp_path_factory.mktemp("fidelity")
    root, out = write_scenes(folder / "scenes", train=16, val=8, seed=3), folder / "artifacts"
    deploy.export(VARIANT, out=out, input_size=(128, 128))
    deploy.quantize([VARIANT], fp16=False, target=[*LEAST], images=16, voc_root=root, out=out)
    vendors = ["ort", "qnn"]
    if importlib.util.find_spec(PACKAGES[Runtime.LITERT]) is not None:
        vendors.append("litert")
    deploy.quantize(
        [VARIANT], fp16=False, target=vendors, vendor=True, images=16, voc_root=root, out=out
    )
    return root, out


@pytest.fixture(scope="module")
def measured(quantized: tuple[Path, Path]) -> dict[Runtime, dict[str, Any]]:
    return {}


@pytest.mark.parametrize("target", LEAST)
def test_a_targets_graph_follows_torch_in_its_own_arithmetic(
    target: str, quantized: tuple[Path, Path], measured: dict[Runtime, dict[str, Any]]
) -> None:
    runtime = ACCELERATORS[target].executed_by
    assert runtime is not None
    if runtime in PACKAGES:
        pytest.importorskip(PACKAGES[runtime])
    if runtime not in measured:
        root, out = quantized
        (measured[runtime],) = deploy.validate([VARIANT], runtime=runtime, voc_root=root, out=out)
    results = measured[runtime]["results"]
    ours, (agreement, sqnr, above) = results[int8_name(target)], LEAST[target]
    integers, convolutions = ours["int8_convolutions"]
    assert integers == convolutions == 78
    assert ours["agreement"] >= agreement
    assert ours["sqnr_db"] >= sqnr
    if above is not None:
        assert ours["sqnr_db"] >= results[vendor_name(target)]["sqnr_db"] + above
