"""A tiny network compiled and run by TVM: a program that check.py starts; nothing of ours.

``python tvm_check.py FOLDER`` runs FOLDER/tiny.onnx on image.npy and writes result.npy.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import tvm
from tvm import relay
from tvm.contrib import graph_executor

TARGET = "llvm -mtriple=x86_64-linux-gnu"


def main(folder: Path) -> None:
    """Compile and run the network; print versions."""
    image = np.load(folder / "image.npy")
    model = onnx.load(str(folder / "tiny.onnx"))
    module, parameters = relay.frontend.from_onnx(model, {"image": image.shape}, freeze_params=True)
    library = relay.build(module, TARGET, params=parameters)
    executor = graph_executor.GraphModule(library["default"](tvm.cpu()))
    executor.run(image=image)
    np.save(folder / "result.npy", executor.get_output(0).numpy())
    print(json.dumps({"tvm": tvm.__version__, "onnx": onnx.__version__}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
