import onnx
import pytest
from graphs import refine_model, residual_model

from deploy.graph.graph import Graph, inferred_values


@pytest.mark.parametrize("model", [refine_model(), residual_model()], ids=["refine", "residual"])
def test_shapes_are_those_that_onnx_infers_with_the_weights(model: onnx.ModelProto) -> None:
    inferred = onnx.shape_inference.infer_shapes(model).graph
    expected = [*inferred.input, *inferred.value_info, *inferred.output]
    weights = {tensor.name for tensor in model.graph.initializer}
    found = inferred_values(model)
    assert [(v.name, v.type.SerializeToString()) for v in found] == [
        (v.name, v.type.SerializeToString()) for v in expected
    ]
    assert set(Graph(model).shapes).isdisjoint(weights)
    assert set(Graph(model).shapes) == {value.name for value in found}
