"""Whether the last bits of a graph's results depend on how many threads onnxruntime has.

A float product that onnxruntime computes in its blocked layout (NCHWc) adds in one order. Another
is cut up by the number of threads, and with the pieces the blocks in which it adds along its inputs
(onnxruntime, mlas/lib/convolve.cpp and sgemm.cpp: the strides along N and K). So it is with
convolutions whose weights are no constants, as between Q/DQ, or whose channels fit no block.
"""

import tempfile
from pathlib import Path

import onnx

from deploy.graph.half import emulate_half, has_half
from deploy.graph.integers import is_quantized
from deploy.graph.reading import read_graph
from deploy.runtimes.sessions import open_session
from deploy.store.environment import default_threads

BLOCKED = "com.microsoft.nchwc"
# Elementwise, of integers, or choosing and moving: no float sum is cut up.
ORDERLESS = frozenset(
    {
        *("Add", "Cast", "Clip", "Concat", "DequantizeLinear", "Div", "Flatten", "GlobalMaxPool"),
        *("HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "MaxPool", "Mul", "NhwcMaxPool"),
        *("Pad", "QLinearAdd", "QLinearConcat", "QLinearConv", "QLinearMul", "QuantizeLinear"),
        *("Relu", "Reshape", "Resize", "Sigmoid", "Slice", "Split", "Squeeze", "Sub", "Transpose"),
        *("Unsqueeze", "Upsample"),
    }
)


def threads_matter(model: onnx.ModelProto | Path, *, exact: bool = True) -> bool:
    """Say whether results may differ in their last bits for another number of threads.

    Args:
        model: a graph, or its file, that onnxruntime loads.
        exact: as of :func:`deploy.runtimes.sessions.open_session`.

    Raises:
        Exception: what onnxruntime raises.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "optimized.onnx")
        open_session(model, 1, exact=exact, write_optimized=path)
        nodes = onnx.load(path, load_external_data=False).graph.node
    return any(node.domain != BLOCKED and node.op_type not in ORDERLESS for node in nodes)


def threads_for(*models: onnx.ModelProto | Path) -> int | None:
    """Return with how many threads graphs compute what this process does; None: with any."""
    return default_threads() if any(map(_any_matter, models)) else None


def _any_matter(model: onnx.ModelProto | Path) -> bool:
    """Say whether they matter to what :func:`deploy.runtimes.open.open_graph` opens."""
    graph = read_graph(model) if isinstance(model, Path) else model
    if has_half(graph):
        return threads_matter(emulate_half(graph))
    if not is_quantized(graph):
        return threads_matter(model)
    return threads_matter(model) or threads_matter(model, exact=False)
