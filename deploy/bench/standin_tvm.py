"""``python -m deploy.bench.standin_tvm``: what the carrier gains in a quantizer of vamc's kin.

vamc is closed. It is made from TVM (``backend.type: tvm_vacc``), whose relay.quantize can be run:
hhb-tvm 3.2.3 in an environment of its own. That one has a single scale for all channels of a
weight, which vamc need not have: it proves the arithmetic, not the tool.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import deploy
from deploy.calibration import Fit, find_voc_root, preprocess, read_split
from deploy.calibration.preprocess import Float32Array, Size
from deploy.calibration.voc import Sample, pick, read_image
from deploy.errors import USER_ERRORS, DeployError
from deploy.graph.graph import Graph
from deploy.graph.reading import read_graph
from deploy.models import DEFAULT_VARIANT
from deploy.progress import ConsoleProgress
from deploy.quantize.calibration_source import CalibrationSource
from deploy.runtimes.onnxruntime import OnnxRunner
from deploy.store.artifacts import DEFAULT_OUT
from deploy.store.environment import describe_environment
from deploy.toolchains.install import find_interpreter
from deploy.validate.metrics import logits_sqnr

WORKER = Path(__file__).with_name("tvm_worker.py")


def bench(
    variant: str, *, calibrating: int, images: int, limit: int, python: Path | None, out: Path
) -> None:
    """Quantize the plain float graph and the carrier by TVM; compare with the float graph.

    Args:
        variant: its id.
        calibrating: how many images of train TVM sees.
        images: how many the carrier is made with.
        limit: how many images of val evaluate.
        python: an interpreter with hhb-tvm; by default that of ``deploy toolchain install tvm``.
        out: the folder of the artifacts; these are in ``standin`` there.
    """
    out = out / "standin"
    fp32 = deploy.export(variant, out=out, fit=Fit.SQUASH, progress=ConsoleProgress()).path
    samples = CalibrationSource.find(None, "train", images).samples
    evaluated = pick(read_split(find_voc_root(), "val"), limit)
    size = Graph(read_graph(fp32)).input_size
    inputs = _inputs(evaluated, size)
    runner = OnnxRunner(fp32)
    reference = [runner(image[None]) for image in inputs]
    python = python or find_interpreter("tvm")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "calibration.npy", _inputs(pick(samples, calibrating), size))
        np.save(folder / "images.npy", inputs)
        for carrier in (False, True):
            graph = _graph(variant, carrier, images, out)
            for mode, logits in quantized_by_tvm(python, graph, folder).items():
                figures = compare(reference, list(logits))
                print(json.dumps({"carrier": carrier, "mode": mode, **figures}), flush=True)
    print(json.dumps(describe_environment()))


def compare(reference: Sequence[Float32Array], logits: Sequence[Float32Array]) -> dict[str, float]:
    """Return the agreement of the largest logits, %, and the logits' SQNR, dB, over all images."""
    pairs = zip(reference, logits, strict=True)
    same = [np.mean(a.argmax(axis=0) == b.argmax(axis=0)) for a, b in pairs]
    sqnr_db = logits_sqnr(reference, logits)
    return {"agreement_percent": 100 * float(np.mean(same)), "sqnr_db": float(sqnr_db)}


def _inputs(samples: Sequence[Sample], size: Size) -> Float32Array:
    """Return images as vamc makes inputs of them, squashed, (N, 3, H, W)."""
    return np.concatenate([preprocess(read_image(s.image), Fit.SQUASH, size) for s in samples])


def _graph(variant: str, carrier: bool, images: int, out: Path) -> Path:
    """Return the graph that ``deploy quantize --target vacc`` hands over."""
    (written,) = deploy.quantize(
        [variant],
        fp16=False,
        target="vacc",
        carrier=carrier,
        images=images,
        out=out,
        progress=ConsoleProgress(),
    )
    return written.path / "fp32.onnx"


def quantized_by_tvm(python: Path, graph: Path, folder: Path) -> dict[str, NDArray[Any]]:
    """Return the logits (N, C, h, w) by how TVM quantized the graph."""
    paths = [graph, *(folder / n for n in ("calibration.npy", "images.npy", "logits.npz"))]
    done = subprocess.run([python, "-I", WORKER, *paths], check=False, stderr=sys.stderr)
    if done.returncode:
        raise DeployError(f"TVM failed on {graph} with exit code {done.returncode}, see above")
    with np.load(paths[-1]) as archive:
        return dict(archive)


def _arguments() -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m deploy.bench.standin_tvm")
    parser.add_argument("variant", nargs="?", default=DEFAULT_VARIANT)
    parser.add_argument("--calibrating", type=int, default=8, help="images of train, for TVM")
    parser.add_argument("--images", type=int, default=50, help="of train, for the carrier")
    parser.add_argument("--limit", type=int, default=8, help="images of val that evaluate")
    parser.add_argument("--python", type=Path, help="an interpreter that has hhb-tvm")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    return vars(parser.parse_args())


if __name__ == "__main__":
    try:
        bench(**_arguments())
    except USER_ERRORS as error:
        sys.exit(f"{type(error).__name__}: {error}")
