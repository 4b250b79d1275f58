"""A tiny network compiled by nncase and run in its simulator: check.py starts this program.

``python k230_check.py FOLDER`` runs FOLDER/tiny.onnx on image.npy and writes result.npy.
"""

import contextlib
import importlib.metadata
import json
import os
import sys
from pathlib import Path
from typing import Any

import dnv
import numpy as np

PACKAGES = Path(dnv.__file__).parent.parent


def find_dotnet() -> Path:
    """Return the folder of the .NET runtime that a package brings."""
    return next(path.parent for path in PACKAGES.rglob("dotnet") if path.is_file())


def main(folder: Path) -> None:
    """Compile and run the network, quantized by its own calibration; print versions."""
    os.environ["DOTNET_ROOT"] = str(find_dotnet())
    os.environ["DOTNET_ROLL_FORWARD"] = "Major"
    # The simulator is a program beside the packages, which the library looks for there.
    os.environ["PATH"] = os.pathsep.join([str(PACKAGES), os.environ["PATH"]])
    os.environ["NNCASE_PLUGIN_PATH"] = str(PACKAGES)
    with contextlib.redirect_stdout(sys.stderr):
        import nncase

        image = np.load(folder / "image.npy")
        options: Any = nncase.CompileOptions()
        options.target = "k230"
        compiler = nncase.Compiler(options)
        compiler.import_onnx((folder / "tiny.onnx").read_bytes(), nncase.ImportOptions())
        calibration: Any = nncase.PTQTensorOptions()
        calibration.samples_count = 1
        calibration.set_tensor_data([[image]])
        compiler.use_ptq(calibration)
        compiler.compile()
        simulator = nncase.Simulator()
        simulator.load_model(compiler.gencode_tobytes())
        simulator.set_input_tensor(0, nncase.RuntimeTensor.from_numpy(image))
        simulator.run()
        np.save(folder / "result.npy", simulator.get_output_tensor(0).to_numpy())
    print(json.dumps({"nncase": importlib.metadata.version("nncase")}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
