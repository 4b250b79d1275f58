"""Qualcomm's HTP emulator in a child process: what it prepares whole, and what that gives.

The vendor's library may end the process that loads it. As a script: JOBS.pickle RESULTS.pickle.
"""

import pickle
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

TIMEOUT_S = 300


@dataclass(frozen=True)
class Job:
    """A graph with one input, and what it is given."""

    model: onnx.ModelProto
    image: NDArray[np.generic]


def run_on_htp(jobs: list[Job], soc_model: int) -> list[NDArray[np.generic] | None]:
    """Return each graph's first output on a chip; None if it is not prepared as a whole."""
    pytest.importorskip("onnxruntime_qnn", reason="onnxruntime-qnn is not installed")
    with tempfile.TemporaryDirectory() as folder:
        given, result = Path(folder, "jobs"), Path(folder, "results")
        given.write_bytes(
            pickle.dumps((soc_model, [(j.model.SerializeToString(), j.image) for j in jobs]))
        )
        done = subprocess.run(
            [sys.executable, __file__, given, result],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        outputs: list[NDArray[np.generic] | None] = pickle.loads(result.read_bytes())
    return outputs


def _main(given: Path, result: Path) -> None:
    import onnxruntime as ort
    import onnxruntime_qnn as qnn

    soc_model, jobs = pickle.loads(given.read_bytes())
    ort.set_default_logger_severity(4)
    ort.register_execution_provider_library(qnn.EP_NAME, qnn.get_library_path())
    devices = [d for d in ort.get_ep_devices() if d.ep_name == qnn.EP_NAME][:1]
    chosen = {"backend_path": qnn.get_qnn_htp_path(), "soc_model": str(soc_model)}
    outputs: list[NDArray[np.generic] | None] = []
    for model, image in jobs:
        options = ort.SessionOptions()
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        options.add_provider_for_devices(devices, chosen)
        try:
            session = ort.InferenceSession(model, options)
        except Exception:  # onnxruntime's own are not to be told apart
            outputs.append(None)
            continue
        session.disable_fallback()
        outputs.append(session.run(None, {session.get_inputs()[0].name: image})[0])
    result.write_bytes(pickle.dumps(outputs))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]))
