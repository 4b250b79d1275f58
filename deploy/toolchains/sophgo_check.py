"""A tiny network compiled by tpu-mlir and run in its C-model: check.py starts this program.

``python sophgo_check.py FOLDER`` runs FOLDER/tiny.onnx on image.npy and writes result.npy.
"""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import tpu_mlir

TOOLS = Path(tpu_mlir.package_path, "python", "tools")


def main(folder: Path) -> None:
    """Compile and run the network, in half precision; print versions."""
    image = np.load(folder / "image.npy")
    np.savez(folder / "input.npz", image=image)
    for command in (
        "model_transform.py --model_name tiny --model_def tiny.onnx --mlir tiny.mlir "
        f"--input_shapes {json.dumps([list(image.shape)], separators=(',', ':'))}",
        "model_deploy.py --mlir tiny.mlir --quantize F16 --chip bm1684x --model tiny.bmodel "
        "--skip_validation",
        "model_runner.py --input input.npz --model tiny.bmodel --output output.npz",
    ):
        program, *arguments = command.split()
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        subprocess.run(
            [sys.executable, str(TOOLS / program), *arguments],
            check=True,
            stdout=sys.stderr,
            cwd=folder,
            env=os.environ | {"PATH": path},
        )
    with np.load(folder / "output.npz") as found:
        np.save(folder / "result.npy", found[found.files[-1]])
    print(json.dumps({"tpu-mlir": importlib.import_module("pymlir").__version__}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
