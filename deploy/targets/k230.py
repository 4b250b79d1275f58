"""Canaan's K230: its KPU, by nncase, which quantizes a float graph on images by itself."""

import io

import numpy as np
from PIL import Image

from deploy.calibration.preprocess import Fit, Float32Array, fit_image, normalize
from deploy.calibration.scenes import draw_scene
from deploy.errors import DeployError
from deploy.graph.carried import carried, with_old_ir
from deploy.graph.graph import Graph
from deploy.graph.profile import Bias, Profile
from deploy.lint.rules import CHANGED_SCALE, COMMON, FLOAT_BIAS, FLOAT_RESULT, WEIGHT_PER_CHANNEL
from deploy.targets.accelerator import Accelerator, Bundled, Part, Precision, Toolbox
from deploy.targets.render import render
from deploy.targets.sophgo import check_plain

IR_VERSION = 9
SCENES = 8  # that nncase calibrates on, where no images of one's own take their place
START = (
    "`python build.py`, with nncase 2.11.0 (`deploy toolchain install k230`), makes model.kmodel "
    "of model.onnx, runs it on golden.npz's image in the simulator and writes output.npy. It takes "
    "7 to 16 minutes at 500x500, the image as long. calibration.npz has {} drawn scenes: put "
    "normalized images of yours, float32 (N, 3, H, W), in their place"
)


def bundle(bundled: Bundled) -> Part:
    """Return the float graph with our weights and biases, images, and what compiles it.

    Raises:
        DeployError: it is not INT8, which alone the KPU computes, or has another interface.
        GraphError: it is made for another runtime.
    """
    if bundled.precision is not Precision.INT8:
        raise DeployError("the K230's KPU computes in 8 bits: bundle INT8")
    check_plain(bundled, "nncase")
    model = with_old_ir(carried(bundled.model).model, IR_VERSION)
    archive = io.BytesIO()
    np.savez_compressed(archive, image=_scenes(Graph(model).input_size))
    return Part(
        files={
            "model.onnx": model.SerializeToString(deterministic=True),
            "calibration.npz": archive.getvalue(),
            "build.py": render(
                "deploy.targets",
                "k230.py.j2",
                name=bundled.title,
                input=bundled.description["input"]["name"],
            ),
        },
        start=START.format(SCENES),
        check="python3 check.py output.npy",
        note="nncase chooses ranges by itself; no board was at hand",
    )


def _scenes(size: tuple[int, int]) -> Float32Array:
    """Return normalized drawn scenes, float32 (N, 3, H, W)."""
    images = []
    for index in range(SCENES):
        jpeg, _ = draw_scene(seed=0, split="train", index=index)
        pixels = np.asarray(Image.open(io.BytesIO(jpeg)))
        images.append(normalize(fit_image(pixels, Fit.SQUASH, size))[0])
    return np.stack(images)


K230 = Accelerator(
    name="k230",
    runtime="Canaan's KPU by nncase",
    source="nncase, 'Compile API' (PTQTensorOptions); what nncase 2.11.0 makes of graphs",
    profile=Profile(name="k230", bias=Bias.FLOAT),
    rules=(*COMMON, WEIGHT_PER_CHANNEL, FLOAT_BIAS, FLOAT_RESULT, CHANGED_SCALE),
    toolchains={"k230": Toolbox(title="Canaan K230 (nncase)", write=bundle)},
)
