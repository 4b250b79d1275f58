"""rf-lw-mbv2 for boards whose compilers stand in environments of their own: compiled, simulated.

``make test-toolchains`` installs these and runs this file; without them its tests skip. The least
that is asked lies below what was measured (docs/targets.md).
"""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from toolchains import needs_k230, needs_rockchip, needs_sophgo

import deploy
from deploy import models
from deploy.calibration.scenes import write_scenes
from deploy.runtimes.runner import Runtime
from deploy.targets import Toolchain, int8_name, vendor_name
from deploy.toolchains import check
from deploy.toolchains.install import find_interpreter

pytestmark = pytest.mark.long
VARIANT = models.DEFAULT_VARIANT


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the scenes, and artifacts with both targets' graphs."""
    folder = tmp_path_factory.mktemp("boards")
    root, out = write_scenes(folder / "scenes", train=16, val=4, seed=3), folder / "artifacts"
    deploy.export(VARIANT, out=out, input_size=(128, 128))
    targets = ["sophgo", "rockchip"]
    deploy.quantize([VARIANT], fp16=False, target=targets, images=16, voc_root=root, out=out)
    return root, out


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("sophgo", marks=needs_sophgo),
        pytest.param("rockchip", marks=needs_rockchip),
        pytest.param("k230", marks=needs_k230),
    ],
)
def test_a_toolchain_computes_a_tiny_network(name: str) -> None:
    found = check.check(name)
    assert found.versions
    assert found.difference < 0.02


def measure(quantized: tuple[Path, Path], runtime: Runtime) -> dict[str, Any]:
    root, out = quantized
    (measured,) = deploy.validate([VARIANT], runtime=runtime, voc_root=root, out=out)
    return dict(measured["results"])


@needs_sophgo
def test_sophgos_module_follows_torch_and_its_chip_the_module(
    quantized: tuple[Path, Path],
) -> None:
    ours = measure(quantized, Runtime.SOPHGO)[int8_name("sophgo")]
    integers, convolutions = ours["int8_convolutions"]
    assert integers == convolutions
    assert ours["agreement"] >= 0.965
    assert ours["sqnr_db"] >= 24
    assert ours["device"]["estimated_ms"] > 0
    assert ours["device"]["images"] == 2
    assert ours["device"]["agreement"] >= 0.98
    assert ours["footprint"]["ddr_read_bytes"] > 0


@needs_rockchip
def test_rockchips_simulator_follows_torch_better_than_with_its_own_quantizer(
    quantized: tuple[Path, Path],
) -> None:
    root, out = quantized
    deploy.quantize(
        [VARIANT], fp16=False, target="rockchip", vendor=True, images=16, voc_root=root, out=out
    )
    results = measure(quantized, Runtime.ROCKCHIP)
    ours, own = results[int8_name("rockchip")], results[vendor_name("rockchip")]
    assert ours["int8_convolutions"] == [84, 84]  # its three Resizes are two each
    assert own["int8_convolutions"] == [78, 78]
    assert ours["agreement"] >= 0.975
    assert ours["sqnr_db"] >= max(22, own["sqnr_db"] + 1)


@needs_k230
def test_k230s_bundle_is_compiled_and_its_golden_image_simulated(
    quantized: tuple[Path, Path],
) -> None:
    root, out = quantized
    deploy.quantize([VARIANT], fp16=False, target="k230", images=16, voc_root=root, out=out)
    folder = deploy.bundle(VARIANT, Toolchain.K230, out=out).path
    command = [find_interpreter("k230"), "build.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "of the labels agree (90% are wanted)" in done.stdout
