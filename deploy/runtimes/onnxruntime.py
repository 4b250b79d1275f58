"""ONNX graphs in onnxruntime on the CPU."""

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from deploy.calibration.preprocess import Float32Array
from deploy.errors import GraphError
from deploy.graph.graph import LABELS_INSIDE, Graph, without_large_constants
from deploy.graph.integers import DYNAMIC, FORMS, is_quantized
from deploy.graph.qdq import DEQUANTIZE, QUANTIZE
from deploy.runtimes.runner import (
    Backend,
    Execution,
    Runner,
    Runtime,
    by_operator,
    cannot,
    check_signature,
)
from deploy.runtimes.sessions import EXACT_ENTRY, kernels_saturate, loaded, open_session
from deploy.store.environment import default_threads

INPUT_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
# Of onnxruntime's optimized graphs.
INTEGER_CONVOLUTIONS = ("QLinearConv", "ConvInteger")
FLOAT_CONVOLUTIONS = ("Conv", "FusedConv", "NhwcFusedConv")
CONVERSIONS = (QUANTIZE, DEQUANTIZE, "DynamicQuantizeLinear", "Cast")
LAYOUT = ("ReorderInput", "ReorderOutput", "Transpose", "Reshape", "Squeeze", "Unsqueeze")


class OnnxRunner:
    """An ONNX graph in onnxruntime on the CPU.

    Args:
        model: the graph, or its file.
        threads: by default one for each processor that this process may use.
        exact: 8-bit convolutions compute what the graph says; else what they do by default.

    Raises:
        GraphError: onnxruntime cannot load the graph, or it is not one image in, logits out.
    """

    def __init__(
        self, model: onnx.ModelProto | Path, threads: int | None = None, *, exact: bool = True
    ) -> None:
        self.timed: Runner | None = None
        self.default: Runner | None = None
        self.name = str(model) if isinstance(model, Path) else "the graph"
        self.exact = exact
        self.session = self._session(model, threads or default_threads())
        if isinstance(model, onnx.ModelProto) and not is_quantized(model):
            model = without_large_constants(model)  # the session holds them, none other is opened
        self.model = model
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        check_signature(
            self.name, [i.type in INPUT_TYPES for i in inputs], [o.shape for o in outputs]
        )
        if outputs[0].type not in INPUT_TYPES:
            raise GraphError(f"{self.name} gives {outputs[0].type}{LABELS_INSIDE}")
        self.input_name, self.output_name = inputs[0].name, outputs[0].name
        self.input_type = INPUT_TYPES[inputs[0].type]

    def _session(
        self, model: onnx.ModelProto | Path, threads: int, write_optimized: Path | None = None
    ) -> onnxruntime.InferenceSession:
        try:
            return open_session(model, threads, exact=self.exact, write_optimized=write_optimized)
        except Exception as error:  # onnxruntime's exceptions share no public base class
            raise cannot("load", "onnxruntime", self.name, error) from None

    def __call__(self, image: Float32Array) -> Float32Array:
        """Run the graph on one image."""
        feed = {self.input_name: image.astype(self.input_type, copy=False)}
        try:
            logits = self.session.run([self.output_name], feed)[0][0]
        except Exception as error:  # onnxruntime's exceptions share no public base class
            raise cannot("run", "onnxruntime", self.name, error) from None
        return np.asarray(logits, dtype=np.float32)

    def execution(self) -> Execution:
        """Return what of the graph computes in integers, by name, after the optimizations.

        A float graph's convolutions are fused and renamed by these, but stay float: of it, its own
        nodes are told.
        """
        source = loaded(self.model)
        return describe(Graph(self.optimized() if is_quantized(source) else source))

    def optimized(self) -> onnx.ModelProto:
        """Return the graph that runs, after onnxruntime's optimizations, without its parameters.

        It tells them by way of a file only: the graph is loaded once more.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "optimized.onnx")
            self._session(self.model, 1, path)
            return onnx.load(path, load_external_data=False)


def describe(graph: Graph) -> Execution:
    """Describe an optimized graph.

    A node computes in integers if it is an operator of integers, or takes the result of one.
    """
    integers = {
        value.name
        for value in graph.model.graph.input
        if value.type.tensor_type.elem_type in (onnx.TensorProto.UINT8, onnx.TensorProto.INT8)
    }
    in_float: list[tuple[str, str]] = []
    counts: Counter[str] = Counter()
    for node in graph.model.graph.node:
        counts[node.op_type] += 1
        is_integer = node.op_type in (QUANTIZE, *FORMS, *DYNAMIC, *INTEGER_CONVOLUTIONS)
        passes_on = node.op_type not in CONVERSIONS and node.input and node.input[0] in integers
        if is_integer or passes_on:
            integers.update(node.output)
        elif node.op_type not in (*CONVERSIONS, *LAYOUT):
            in_float.append((node.op_type, node.name))
    return Execution(
        integer_convolutions=sum(counts[name] for name in INTEGER_CONVOLUTIONS),
        float_convolutions=tuple(name for op, name in in_float if op in FLOAT_CONVOLUTIONS),
        float_nodes=by_operator(
            (op, name) for op, name in in_float if op not in FLOAT_CONVOLUTIONS
        ),
        conversions=sum(counts[name] for name in CONVERSIONS),
    )


BACKEND = Backend(
    runtime=Runtime.ONNXRUNTIME,
    open=lambda path, threads, exact: OnnxRunner(path, threads, exact=exact),
    exact_options=lambda: "=".join(EXACT_ENTRY) if kernels_saturate() else None,
    exact_in_8_bits=True,
    require=lambda: None,
)
