"""What each toolchain wants in its bundle: the model in its form, and how to start it."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from deploy.bundle.contents import Contents, Precision, Toolchain
from deploy.bundle.render import render
from deploy.errors import DeployError
from deploy.runtime import load_openvino, openvino_core

Files = dict[str, bytes | str]
Golden = Mapping[str, NDArray[Any]]

# TensorRT 8 needs leave for each precision that a graph holds.
WEAK_FLAGS = {Precision.INT8: "--int8 --fp16", Precision.FP16: "--fp16", Precision.FP32: "--noTF32"}
TRITON_TYPES = {"float32": "TYPE_FP32", "uint8": "TYPE_UINT8"}

HOW = {
    Precision.INT8: "int8 between Q/DQ, float32 elsewhere",
    Precision.FP16: "half between its casts, float32 elsewhere",
    Precision.FP32: "float32",
}


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a toolchain adds to a bundle."""

    files: Files
    start: str  # how to start it: a line of README.md
    check: str  # the command that compares it with golden.npz
    note: str | None = None  # what is not as one would expect


def triton(contents: Contents, description: dict[str, Any], golden: Golden) -> Part:
    """Return a model repository in ``models``."""
    name = contents.title
    config = render(
        "config.pbtxt.j2",
        model=description,
        types=TRITON_TYPES,
        # The INT8 graph is made for onnxruntime's kernels on CPUs; of the others Triton chooses.
        kind="KIND_CPU" if contents.precision is Precision.INT8 else "KIND_AUTO",
    )
    return Part(
        files={
            f"models/{name}/1/model.onnx": contents.model.SerializeToString(deterministic=True),
            f"models/{name}/config.pbtxt": config,
        },
        start="`tritonserver --model-repository=$PWD/models` (with its onnxruntime backend)",
        check="python3 check.py http://localhost:8000",
        note=_saturation("onnxruntime", contents),
    )


def _saturation(runtime: str, contents: Contents) -> str | None:
    """Return what to know of an INT8 graph on processors whose kernels saturate."""
    if contents.precision is not Precision.INT8:
        return None
    text = f"on x86 without 8-bit dot products (VNNI) {runtime}'s kernels saturate by default; "
    if runtime == "onnxruntime":
        text += "the session entry session.x64quantprecision: 1 prevents it; where it cannot be set"
    else:
        text += "there"
    return f"{text}, use the graph of 'deploy quantize --int8 --target ort-avx2' instead"


def openvino(contents: Contents, description: dict[str, Any], golden: Golden) -> Part:
    """Return OpenVINO's own form of the graph, or ONNX where OpenVINO is not installed."""
    start = (
        '`openvino.Core().compile_model("{}", "CPU")`; the hint INFERENCE_PRECISION_HINT: f32 '
        "keeps what is float from bfloat16"
    )
    content = contents.model.SerializeToString(deterministic=True)
    try:
        library = load_openvino()
    except DeployError:
        return Part(
            files={"model.onnx": content},
            start=start.format("model.onnx"),
            check="python3 check.py",
            note="OpenVINO was not installed: the model is ONNX, which OpenVINO reads as well",
        )
    with tempfile.TemporaryDirectory() as folder:
        model = openvino_core().read_model(content)
        library.save_model(model, str(Path(folder, "model.xml")), compress_to_fp16=False)
        files: Files = {
            name: Path(folder, name).read_bytes() for name in ("model.xml", "model.bin")
        }
    return Part(
        files=files,
        start=start.format("model.xml"),
        check="python3 check.py",
        note=_saturation("OpenVINO", contents),
    )


def tensorrt(contents: Contents, description: dict[str, Any], golden: Golden) -> Part:
    """Return the ONNX graph and the script that builds an engine of it on the device."""
    name, precision = description["input"]["name"], contents.precision
    script = render(
        "build.sh.j2",
        how=HOW[precision],
        weak=WEAK_FLAGS[precision],
        strong=" --noTF32" if precision is Precision.FP32 else "",
        input=name,
    )
    return Part(
        files={
            "model.onnx": contents.model.SerializeToString(deterministic=True),
            "build.sh": script,
            "golden-input.bin": golden[name].tobytes(),
        },
        start="`sh build.sh` on the device, with trtexec in PATH: it makes `model.plan`",
        check="python3 check.py output.json",
        note="no device was at hand: build.sh has not been run",
    )


WRITERS: Mapping[Toolchain, Callable[[Contents, dict[str, Any], Golden], Part]] = {
    Toolchain.TRITON: triton,
    Toolchain.OPENVINO: openvino,
    Toolchain.TENSORRT: tensorrt,
}


def vacc(folder: Path) -> Part:
    """Return the files of a folder that ``deploy quantize --target vacc`` wrote."""
    files: Files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    return Part(
        files=files,
        start="`vamc compile compile.yaml` quantizes and compiles; the device's preprocessing is "
        "preprocess.json; save what it gives for golden.npz's image with numpy as output.npy",
        check="python3 check.py output.npy",
        note="vamc was not at hand: it has not been run",
    )
