"""The other kind of processor: x86 without VNNI, emulated by qemu-user as a Haswell.

Run on one without VNNI itself, both sides saturate by default, and must agree all the same.
"""

import json
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from emulated import IMAGE
from graphs import quantized, refine_model

import deploy
from deploy.calibration.scenes import write_scenes
from deploy.targets import PROFILES

EMULATOR = "qemu-x86_64"
TARGETS = ("ort", "tensorrt", "ort-avx2")
INTEGERS = ("ort", "ort-avx2", "qnn")  # all convolutions of their graphs compute in integers
VARIANT = "rf-lw-mbv2"

# Seconds that 128 x 128 x 128 float products take. Half a second was seen, where one network of
# floats took 90 seconds an image, which elsewhere had taken one: validation would take an hour.
PROBE = """
import time, numpy
a = numpy.ones((128, 128), numpy.float32)
start = time.perf_counter()
a @ a
print(time.perf_counter() - start)
"""
SLOW_SECONDS = 0.1

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.skipif(
        shutil.which(EMULATOR) is None or platform.machine() != "x86_64",
        reason=f"{EMULATOR} is missing (Debian's package qemu-user), or this is no x86",
    ),
]


@dataclass(frozen=True)
class Side:
    """What one processor gave."""

    logits: dict[str, np.ndarray]
    content: dict[str, Any]

    @property
    def validation(self) -> dict[str, Any]:
        """What ``deploy validate --json`` gives for the variant."""
        if self.content["validation"] is None:
            pytest.skip(f"{EMULATOR} computes floats too slowly on this machine to validate in it")
        validation: dict[str, Any]
        (validation,) = self.content["validation"]
        return validation

    def figures(self, graph: str) -> dict[str, Any]:
        """Return the figures of a graph there."""
        figures: dict[str, Any] = self.validation["results"][graph]
        return figures


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return small graphs for every target, and artifacts of the variant at 128x128."""
    pytest.importorskip("openvino")
    folder = tmp_path_factory.mktemp("processors")
    (folder / "small").mkdir()
    for target in PROFILES:
        # many channels: the few of the tiny network are summed in registers that do not overflow
        model = quantized(refine_model(width=64), [IMAGE], target)
        onnx.save(model, folder / "small" / f"{target}.onnx")
    root, out = write_scenes(folder / "scenes", train=4, val=2, seed=5), folder / "artifacts"
    deploy.export(VARIANT, input_size=(128, 128), out=out)
    for target in TARGETS:
        deploy.quantize([VARIANT], fp16=False, target=target, images=4, voc_root=root, out=out)
    return folder


def run(folder: Path, name: str, *emulator: str, is_small: bool = False) -> Side:
    """Return what ``tests/emulated.py`` writes in a process of its own."""
    script = Path(__file__).parents[1] / "emulated.py"
    command = [*emulator, sys.executable, str(script), str(folder), str(folder / name)]
    command += ["small"] if is_small else []
    done = subprocess.run(command, capture_output=True, text=True, cwd=script.parent.parent)
    assert done.returncode == 0, done.stderr[-2000:]
    content = json.loads((folder / f"{name}.json").read_text())
    with np.load(folder / f"{name}.npz") as logits:
        return Side(logits=dict(logits), content=content)


@pytest.fixture(scope="module")
def native(folder: Path) -> Side:
    """Return what this processor gives."""
    return run(folder, "native")


@pytest.fixture(scope="module")
def haswell(folder: Path, native: Side) -> Side:
    """Return what one without VNNI gives; a minute."""
    probe = [EMULATOR, "-cpu", "Haswell", sys.executable, "-c", PROBE]
    done = subprocess.run(probe, capture_output=True, text=True, check=True)
    is_slow = float(done.stdout) > SLOW_SECONDS
    return run(folder, "haswell", EMULATOR, "-cpu", "Haswell", is_small=is_slow)


def test_the_probe_finds_that_kernels_saturate(haswell: Side) -> None:
    assert haswell.content["saturate"] == {"onnxruntime": True, "openvino": True}


@pytest.mark.parametrize("target", PROFILES)
def test_exact_logits_are_the_same(target: str, native: Side, haswell: Side) -> None:
    ours, theirs = (side.logits[f"{target} exact"] for side in (native, haswell))
    if target in INTEGERS:
        np.testing.assert_array_equal(theirs, ours)
    else:  # roundings may flip
        assert (theirs != ours).mean() < 0.01


def test_default_logits_saturate_but_for_7_bit_weights(haswell: Side) -> None:
    def differs(target: str) -> bool:
        exact, default = (haswell.logits[f"{target} {kind}"] for kind in ("exact", "default"))
        return not np.array_equal(exact, default)

    assert differs("ort")
    assert not differs("ort-avx2")


def test_openvino_computes_the_same_when_it_is_exact(native: Side, haswell: Side) -> None:
    name = "openvino {} openvino"
    ours, theirs = (side.logits[name.format("exact")] for side in (native, haswell))
    off = haswell.logits[name.format("default")]
    assert np.square(theirs - ours).sum() < np.square(off - ours).sum() / 10


@pytest.mark.parametrize("graph", ["fp32", "int8", "int8-ort-avx2", "int8-tensorrt"])
def test_verdict_is_the_same(graph: str, native: Side, haswell: Side) -> None:
    ours, theirs = native.figures(graph), haswell.figures(graph)
    floor = 1.0 if graph == "int8-tensorrt" else 0.01  # it is evaluated in float
    if graph != "fp32":  # its SQNR, above 100 dB, is that of the order of sums
        assert theirs["sqnr_db"] == pytest.approx(ours["sqnr_db"], abs=floor)
    assert theirs["agreement"] == pytest.approx(ours["agreement"], abs=floor / 100)
    assert theirs["miou"] == pytest.approx(ours["miou"], abs=floor / 100)
    assert theirs["int8_convolutions"] == ours["int8_convolutions"]


def test_what_default_options_make_of_a_graph_stands_beside(haswell: Side) -> None:
    validation = haswell.validation
    assert validation["exact_options"] == "session.x64quantprecision=1"
    for graph in ("int8", "int8-tensorrt"):
        figures = haswell.figures(graph)
        assert figures["default_options"]["sqnr_db"] < figures["sqnr_db"] - 3
    for graph in ("torch", "fp32", "int8-ort-avx2"):
        assert haswell.figures(graph)["default_options"] is None


def test_the_processor_is_told_of_in_words(folder: Path, haswell: Side) -> None:
    from deploy.report.processor import sentences

    validation = haswell.validation
    said = sentences({VARIANT: validation})
    assert said[0].startswith("This processor lacks 8-bit dot products (VNNI)")
    assert "session.x64quantprecision=1" in said[0]
    assert "--target ort-avx2" in said[0]
    assert [text.split(" in ")[0] for text in said[1:]] == [
        f"{VARIANT} int8",
        f"{VARIANT} int8-tensorrt",
    ]
