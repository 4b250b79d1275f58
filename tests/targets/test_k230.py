"""Canaan's K230: what its bundle holds, and nncase's simulator where it is installed."""

import subprocess
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from graphs import quantized, refine_model
from toolchains import needs_k230

from deploy.errors import DeployError
from deploy.graph.graph import Graph, count_ops
from deploy.targets import lint
from deploy.targets.accelerator import Bundled, Precision
from deploy.targets.k230 import SCENES, bundle
from deploy.toolchains.install import find_interpreter

IMAGE = np.random.default_rng(1).standard_normal((1, 3, 16, 16), dtype=np.float32)
CHECK = """\
import numpy as np
expected, found = np.load("golden.npz")["logits"], np.load("output.npy")
noise = np.square(expected - found).sum()
print(10 * np.log10(np.square(expected).sum() / noise))
"""


def bundled(model: onnx.ModelProto, precision: Precision = Precision.INT8, **given: str) -> Bundled:
    described = {
        "input": {"name": "image", "type": "float32"} | given,
        "output": {"head": "logits"},
    }
    return Bundled(
        title="tiny",
        precision=precision,
        model=model,
        description=described,
        golden={},
        folder=Path(),
    )


def test_it_holds_the_float_graph_images_and_what_builds_it() -> None:
    model = quantized(refine_model(), [IMAGE], "k230")
    assert not lint(model, "k230")
    files = bundle(bundled(model)).files
    assert set(files) == {"model.onnx", "calibration.npz", "build.py"}
    made = onnx.load_from_string(files["model.onnx"])  # type: ignore[arg-type]
    assert "QuantizeLinear" not in count_ops(made)
    assert Graph(made).input_size == Graph(model).input_size
    compile(str(files["build.py"]), "build.py", "exec")


def test_what_the_kpu_does_not_compute_is_one_line() -> None:
    model = quantized(refine_model(), [IMAGE], "k230")
    with pytest.raises(DeployError, match="computes in 8 bits: bundle INT8"):
        bundle(bundled(model, Precision.FP16))
    with pytest.raises(DeployError, match="nncase takes float images"):
        bundle(bundled(model, type="uint8"))


@pytest.mark.long  # compiles for a minute
@needs_k230
def test_a_golden_image_in_the_simulator(tmp_path: Path) -> None:
    model = quantized(refine_model(), [IMAGE], "k230")
    for name, content in bundle(bundled(model)).files.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    size = Graph(model).input_size
    assert np.load(tmp_path / "calibration.npz")["image"].shape == (SCENES, 3, *size)
    image = np.load(tmp_path / "calibration.npz")["image"][:1]
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    np.savez(tmp_path / "golden.npz", image=image, logits=session.run(None, {"image": image})[0])
    (tmp_path / "check.py").write_text(CHECK, encoding="utf-8")
    command = [str(find_interpreter("k230")), "build.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    assert (tmp_path / "model.kmodel").stat().st_size > 0
    assert float(done.stdout.split()[-1]) > 15
