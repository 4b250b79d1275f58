"""What vamc 3.4.2 recommends, onnx 1.14.0 and onnxruntime 1.13.1, takes the graph handed over."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

import deploy
from deploy import models
from deploy.calibration.scenes import write_scenes
from deploy.errors import DeployError
from deploy.runtimes.onnxruntime import OnnxRunner
from deploy.toolchains.python import make_environment

PACKAGES = Path(__file__).parents[1] / "data" / "vamc-tools.txt"
SCRIPT = """\
import sys
import numpy, onnx, onnxruntime
print(onnx.__version__, onnxruntime.__version__)
for name in sys.argv[1:]:
    model = onnx.load(name + ".onnx")
    onnx.checker.check_model(model, full_check=True)
    (value,) = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph.output
    print([d.dim_value for d in value.type.tensor_type.shape.dim])
    session = onnxruntime.InferenceSession(name + ".onnx")
    (logits,) = session.run(None, {"image": numpy.load("image.npy")})
    numpy.save(name + ".npy", logits)
"""

pytestmark = [pytest.mark.slow, pytest.mark.long]


@pytest.fixture(scope="module")
def old_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the interpreter of an environment that has the old tools."""
    try:
        folder = tmp_path_factory.mktemp("old") / "environment"
        return make_environment(folder, ["3.10", "3.9", "3.8"], PACKAGES)
    except DeployError as error:
        pytest.skip(str(error))


def test_old_tools_take_the_graphs_and_give_the_same_logits(
    old_python: Path, tmp_path: Path
) -> None:
    name, out = models.DEFAULT_VARIANT, tmp_path / "artifacts"
    root = write_scenes(tmp_path / "scenes", train=2, val=1, seed=1)
    deploy.export(name, out=out, input_size=(128, 128))
    for carrier in (False, True):
        (written,) = deploy.quantize(
            [name], fp16=False, target="vacc", carrier=carrier, images=2, voc_root=root, out=out
        )
        (written.path / "fp32.onnx").rename(tmp_path / f"{'carrier' if carrier else 'plain'}.onnx")
    image = np.random.default_rng(0).standard_normal((1, 3, 128, 128)).astype(np.float32)
    np.save(tmp_path / "image.npy", image)
    command = [str(old_python), "-c", SCRIPT, "plain", "carrier"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shape = "[1, 21, 32, 32]"
    assert done.stdout.splitlines() == ["1.14.0 1.13.1", shape, shape]
    for graph in ("plain", "carrier"):
        (found,) = np.load(tmp_path / f"{graph}.npy")
        expected = OnnxRunner(tmp_path / f"{graph}.onnx")(image)
        # other kernels add in another order
        assert np.abs(found - expected).max() <= 1e-5 * np.ptp(expected)
