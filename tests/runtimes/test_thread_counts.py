"""Where the number of threads can change the last bits of a result."""

import numpy as np
import onnx
import pytest
from graphs import refine_model
from onnx import TensorProto, helper, numpy_helper

from deploy.runtimes.sessions import open_session
from deploy.runtimes.thread_counts import threads_for, threads_matter
from deploy.store.environment import default_threads


def product(size: int = 512) -> onnx.ModelProto:
    """Return a graph of one float product, which onnxruntime cuts up."""
    weight = np.random.default_rng(0).standard_normal((size, size), dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["image", "w"], ["logits"])],
        "product",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, (4, size))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, (4, size))],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_products_depend_on_threads() -> None:
    assert threads_matter(product())
    assert threads_for(product()) == default_threads()
    assert threads_for(refine_model(classes=8), product()) == default_threads()


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_blocked_convolutions_do_not(threads: int) -> None:
    model = refine_model(classes=8)
    if threads_matter(model):
        pytest.skip("this processor has no blocked kernels")
    assert threads_for(model) is None
    for seed in range(3):
        image = np.random.default_rng(seed).standard_normal((1, 3, 16, 16), dtype=np.float32)
        one, several = (
            open_session(model, number).run(None, {"image": image})[0] for number in (1, threads)
        )
        assert np.array_equal(one, several)
