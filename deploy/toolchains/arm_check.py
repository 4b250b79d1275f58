"""A tiny network in onnxruntime on ARM: a program that check.py starts. It imports nothing of ours.

``python arm_check.py FOLDER`` runs FOLDER/tiny.onnx on image.npy and writes result.npy.
"""

import json
import platform
import sys
from pathlib import Path

import ai_edge_litert.interpreter
import ncnn
import numpy as np
import onnxruntime


def main(folder: Path) -> None:
    """Run the network; print versions."""
    session = onnxruntime.InferenceSession(
        str(folder / "tiny.onnx"), providers=["CPUExecutionProvider"]
    )
    (result,) = session.run(None, {"image": np.load(folder / "image.npy")})
    np.save(folder / "result.npy", result)
    assert ai_edge_litert.interpreter.Interpreter
    versions = {
        "machine": platform.machine(),
        "onnxruntime": onnxruntime.__version__,
        "ncnn": ncnn.__version__,
        "litert": ai_edge_litert.__version__,
    }
    print(json.dumps(versions))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
