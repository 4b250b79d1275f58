"""A tiny network compiled by rknn-toolkit2 and run in its simulator: check.py starts this program.

``python rockchip_check.py FOLDER`` runs FOLDER/tiny.onnx on image.npy and writes result.npy.
"""

import contextlib
import importlib.metadata
import json
import sys
from pathlib import Path

import numpy as np
from rknn.api import RKNN


def main(folder: Path) -> None:
    """Compile and run the network, in half precision; print versions."""
    with contextlib.redirect_stdout(sys.stderr):
        rknn = RKNN(verbose=False)
        code = rknn.config(target_platform="rk3588")
        code = code or rknn.load_onnx(model=str(folder / "tiny.onnx"))
        code = code or rknn.build(do_quantization=False)
        if code or rknn.init_runtime() != 0:
            raise RuntimeError("rknn-toolkit2 failed")
        image = np.load(folder / "image.npy")
        np.save(folder / "result.npy", rknn.inference(inputs=[image], data_format=["nchw"])[0])
    print(json.dumps({"rknn-toolkit2": importlib.metadata.version("rknn-toolkit2")}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
