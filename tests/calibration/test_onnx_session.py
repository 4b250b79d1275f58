from collections.abc import Callable

import numpy as np
import onnx
import pytest
from graphs import quantized, refine_model
from onnx import TensorProto, helper, numpy_helper

from deploy.calibration import onnx_session
from deploy.calibration.onnx_session import open_model, session_options, without_initializers
from deploy.graph.graph import Graph
from deploy.quantize.fp16 import convert_fp16
from deploy.runtimes.onnxruntime import OnnxRunner

IMAGE = np.random.default_rng(0).standard_normal((1, 3, 16, 16)).astype(np.float32)
FORMS = {
    "float": refine_model,
    "half": lambda: convert_fp16(Graph(refine_model()), {}).model,
    "int8": lambda: quantized(refine_model(), [IMAGE]),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("exact", [True, False])
def test_constants_beside_the_graph_change_nothing(
    form: str, exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    make: Callable[[], onnx.ModelProto] = FORMS[form]
    model = make()
    before = model.SerializeToString(deterministic=True)
    whole = OnnxRunner(model, 1, exact=exact)
    monkeypatch.setattr(onnx_session, "LARGE_BYTES", 64)
    apart = OnnxRunner(model, 1, exact=exact)
    np.testing.assert_array_equal(apart(IMAGE), whole(IMAGE))
    assert apart.execution() == whole.execution()
    assert model.SerializeToString(deterministic=True) == before


def test_a_large_constant_is_not_in_what_onnxruntime_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = []

    def spy(content: bytes, *_: object, **__: object) -> None:
        sizes.append(len(content))

    monkeypatch.setattr("onnxruntime.InferenceSession", spy)
    weight = numpy_helper.from_array(np.zeros((512, 512), dtype=np.float32), "w")
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 512]) for name in "xy"]
    graph = helper.make_graph([node], "g", ports[:1], ports[1:], [weight])
    open_model(helper.make_model(graph), session_options(1))
    assert sizes[0] < 1000


def test_without_initializers_keeps_all_else() -> None:
    model = refine_model()
    model.producer_name, model.graph.doc_string = "maker", "words"
    copy = without_initializers(model)
    assert not copy.graph.initializer
    copy.graph.initializer.extend(model.graph.initializer)
    assert copy == model
    assert not without_initializers(model, "node").graph.node
