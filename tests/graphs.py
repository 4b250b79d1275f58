"""Small ONNX graphs made of the operators that the networks are made of."""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper


def make_model(
    nodes: list[onnx.NodeProto],
    constants: dict[str, NDArray[np.generic]],
    *,
    input_shape: tuple[int | str, ...] = (1, 3, 16, 16),
    output: str = "logits",
    opset: int = 18,
) -> onnx.ModelProto:
    """Return a checked graph from ``image`` to ``output``."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, input_shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    model = onnx.shape_inference.infer_shapes(model)
    onnx.checker.check_model(model)
    return model


def refine_model(classes: int = 4, seed: int = 0, width: int = 8) -> onnx.ModelProto:
    """Return a graph with each operator, and each activation that is fused, at least once."""
    r = np.random.default_rng(seed)

    def weight(*shape: int) -> NDArray[np.float32]:
        return (r.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    constants: dict[str, NDArray[np.generic]] = {
        "w1": weight(8, 3, 3, 3),
        "b1": weight(8),
        "w2": weight(8, 8, 1, 1),
        "b2": weight(8),
        "w3": weight(8, 1, 3, 3),
        "w4": weight(classes, 8, 3, 3),
        "b4": weight(classes),
        "low": np.float32(0),
        "high": np.float32(6),
        "sizes": np.array([1, 8, 16, 16], dtype=np.int64),
    }
    same = {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}
    node = helper.make_node
    nodes = [
        node("Conv", ["image", "w1", "b1"], ["c1"], name="conv1", **same),
        node("Relu", ["c1"], ["r1"], name="relu1"),
        node("MaxPool", ["r1"], ["p1"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p1", "w2", "b2"], ["c2"], name="conv2"),
        node("Clip", ["c2", "low", "high"], ["k2"], name="clip"),
        node("Conv", ["k2", "w3"], ["c3"], name="depthwise", group=8, **same),
        node(
            "Resize",
            ["c3", "", "", "sizes"],
            ["u3"],
            name="resize",
            mode="linear",
            coordinate_transformation_mode="align_corners",
        ),
        node("Add", ["u3", "r1"], ["s4"], name="add"),
        node("Relu", ["s4"], ["r4"], name="relu4"),
        node("Add", ["r4", "u3"], ["s5"], name="add_linear"),
        node("Conv", ["s5", "w4", "b4"], ["logits"], name="classifier", **same),
    ]
    return make_model(nodes, constants)


def residual_model() -> onnx.ModelProto:
    """Return a graph of 1x1 convolutions whose sums have none, one or two of their own."""
    weight = np.random.default_rng(0).standard_normal((3, 3, 1, 1), dtype=np.float32)

    def conv(source: str, target: str) -> onnx.NodeProto:
        return helper.make_node("Conv", [source, "w"], [target], name=f"conv_{target}")

    return make_model(
        [
            conv("image", "a"),
            conv("a", "b"),
            conv("b", "c"),
            conv("a", "shortcut"),
            helper.make_node("Add", ["c", "a"], ["s"], name="identity_add"),
            conv("s", "d"),
            helper.make_node("Add", ["shortcut", "d"], ["t"], name="projection_add"),
            helper.make_node("Add", ["t", "b"], ["logits"], name="plain_add"),
        ],
        {"w": weight},
    )


def relu_beside_sum_model() -> onnx.ModelProto:
    """Return a residual unit as RefineNet has it: what the Relu takes is summed as well."""
    weight = np.random.default_rng(0).standard_normal((3, 3, 1, 1), dtype=np.float32)
    node = helper.make_node
    return make_model(
        [
            node("Conv", ["image", "w"], ["a"], name="conv_a"),
            node("Relu", ["a"], ["b"], name="relu"),
            node("Conv", ["b", "w"], ["c"], name="conv_c"),
            node("Add", ["c", "a"], ["d"], name="add"),
            node("Conv", ["d", "w"], ["logits"], name="classifier"),
        ],
        {"w": weight},
    )


def quantized(
    model: onnx.ModelProto,
    images: list[NDArray[np.float32]],
    target: str = "ort",
    exclude: frozenset[str] = frozenset(),
) -> onnx.ModelProto:
    """Return the INT8 graph for a target, calibrated on ``images``."""
    from deploy.calibration import observe
    from deploy.calibration.ranges import RangeConfig, choose_range
    from deploy.graph.graph import Graph
    from deploy.quantize.int8 import quantize_int8
    from deploy.quantize.placement import place
    from deploy.targets import PROFILES

    graph, profile = Graph(model), PROFILES[target]
    placement = place(graph, profile, exclude)
    statistics = observe(
        model,
        {name: graph.shapes[name] for name in placement.observed},
        images,
        non_negative=placement.non_negative,
    )
    ranges = {name: choose_range(s, RangeConfig()) for name, s in statistics.items()}
    return quantize_int8(graph, placement, ranges, profile)


def run(model: onnx.ModelProto, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the graph's first output in onnxruntime, with every optimization off."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    output: NDArray[np.float32] = session.run(None, {"image": image})[0]
    return output
