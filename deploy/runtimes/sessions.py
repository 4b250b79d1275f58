"""Sessions of onnxruntime on the CPU in which 8-bit convolutions compute what the graph says.

On a processor whose kernels saturate (saturation.py), weights become unsigned, for which there are
kernels that add in 32 bits: the same integers, so the same results. A float convolution between
Q/DQ stays float, and so does a bias that would overflow (deploy/graph/requantized.py).
"""

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from deploy.calibration.onnx_session import open_model, session_options
from deploy.calibration.preprocess import Float32Array
from deploy.graph.requantized import find_overflowing, find_requantized
from deploy.runtimes.saturation import saturates

EXACT_ENTRY = "session.x64quantprecision", "1"  # onnxruntime_session_options_config_keys.h
REQUANTIZER = "WeightBiasQuantization"


def open_session(
    model: onnx.ModelProto | Path,
    threads: int = 0,
    *,
    exact: bool = True,
    write_optimized: Path | None = None,
    arena: bool = True,
) -> onnxruntime.InferenceSession:
    """Return a session.

    Args:
        model: the graph, or its file.
        threads: of the session; 0 takes one for each core.
        exact: compute what the graph says; else with the options by which applications begin, whose
            kernels may saturate.
        write_optimized: where to write the graph as it runs.
        arena: keep what a pass frees for the next one; else it is the system's again.

    Raises:
        Exception: what onnxruntime raises; its exceptions share no public base class.
    """

    def options() -> onnxruntime.SessionOptions:
        made = session_options(threads)
        made.enable_cpu_mem_arena = arena
        if write_optimized is not None:
            made.optimized_model_filepath = str(write_optimized)
        return made

    if not exact:
        return open_model(model, options())
    needless = disabled_for(loaded(model))
    if not kernels_saturate():
        return open_model(model, options(), needless)
    unsigned = options()
    unsigned.add_session_config_entry(*EXACT_ENTRY)
    try:
        return open_model(model, unsigned, needless)
    except Exception:
        # QLinearConv with signed activations has no unsigned form; its kernels do not saturate
        return open_model(model, options(), needless)


def disabled_for(model: onnx.ModelProto) -> list[str]:
    """Return which optimizations would make a graph compute something else than it says."""
    return [REQUANTIZER] if find_requantized(model) or find_overflowing(model) else []


def loaded(model: onnx.ModelProto | Path) -> onnx.ModelProto:
    """Return a graph, or that of a file which onnxruntime loads as well: it is not checked."""
    return onnx.load(model, load_external_data=False) if isinstance(model, Path) else model


@cache
def kernels_saturate() -> bool:
    """Say whether onnxruntime's 8-bit kernels saturate on this processor by default."""

    def run(model: onnx.ModelProto, image: Float32Array) -> Float32Array:
        (result,) = open_model(model, session_options(1)).run(None, {"image": image})
        return np.asarray(result, dtype=np.float32)

    return saturates(run)
