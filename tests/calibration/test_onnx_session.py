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
from deploy.runtimes.sessions import open_session

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
    assert apart.name == "the graph"
    session = open_session(model, 1, exact=exact)
    feed = {apart.input_name: IMAGE.astype(apart.input_type)}
    np.testing.assert_array_equal(session.run(None, feed)[0][0], apart(IMAGE))
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


def test_a_session_has_its_own_copy_of_the_constants() -> None:
    rows = np.arange(2**22, dtype=np.float32).reshape(2**11, 2**11)
    node = helper.make_node("Gather", ["w", "x"], ["y"])  # what no kernel packs
    given = helper.make_tensor_value_info("x", TensorProto.INT64, [1])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2**11])
    weight = numpy_helper.from_array(rows, "w")
    graph = helper.make_graph([node], "g", [given], [result], [weight])
    opsets = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, ir_version=10, opset_imports=opsets)
    session = open_model(model, session_options(1))
    others = [np.zeros_like(rows) for _ in range(4)]  # where the values were
    found = session.run(None, {"x": np.array([2**10])})[0][0]
    np.testing.assert_array_equal(found, rows[2**10])
    assert not any(other.any() for other in others)


def test_without_initializers_keeps_all_else() -> None:
    model = refine_model()
    model.producer_name, model.graph.doc_string = "maker", "words"
    copy = without_initializers(model)
    assert not copy.graph.initializer
    copy.graph.initializer.extend(model.graph.initializer)
    assert copy == model
    assert not without_initializers(model, "node").graph.node
