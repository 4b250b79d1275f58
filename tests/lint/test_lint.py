from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import make_model, quantized, refine_model, relu_beside_sum_model, residual_model
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from deploy.errors import DeployError, GraphError
from deploy.graph.metadata import set_metadata
from deploy.targets import ACCELERATORS, PROFILES, lint

R = np.random.default_rng(1)
IMAGES = [R.standard_normal((1, 3, 16, 16), dtype=np.float32) for _ in range(4)]
Change = Callable[[onnx.ModelProto], None]


def found(model: onnx.ModelProto, target: str) -> dict[str, set[str]]:
    """Return the nodes that break each rule."""
    rules: dict[str, set[str]] = {}
    for finding in lint(model, target):
        assert finding.problem
        assert finding.remedy
        rules.setdefault(finding.rule, set()).add(finding.node)
    return rules


def static(tmp_path: Path, **options: object) -> onnx.ModelProto:
    """Return the tiny network as onnxruntime's own quantizer writes it."""

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.feeds = iter({"image": image} for image in IMAGES)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

    path = tmp_path / "static.onnx"
    quantize_static(refine_model(), path, Reader(), **{"quant_format": QuantFormat.QDQ} | options)
    return onnx.load(path)


def set_constant(model: onnx.ModelProto, name: str, value: np.ndarray) -> None:
    (tensor,) = (t for t in model.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(value, name))


def constant(model: onnx.ModelProto, name: str) -> np.ndarray:
    (tensor,) = (t for t in model.graph.initializer if t.name == name)
    return numpy_helper.to_array(tensor).copy()


def node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    (found_node,) = (n for n in model.graph.node if n.name == name)
    return found_node


@pytest.mark.parametrize(
    "model",
    [refine_model(), residual_model(), relu_beside_sum_model()],
    ids=["refine", "residual", "relu_beside_sum"],
)
@pytest.mark.parametrize("target", PROFILES)
def test_lint_own_graph_is_clean_under_its_target(model: onnx.ModelProto, target: str) -> None:
    assert lint(quantized(model, IMAGES, target), target) == []


def test_lint_relu_whose_result_is_not_quantized_is_in_float() -> None:
    model = quantized(relu_beside_sum_model(), IMAGES)
    node(model, "conv_c").input[0] = "b_float"
    assert found(model, "ort") == {"float-input": {"conv_c"}, "separate-activation": {"relu"}}


def test_lint_every_target_has_rules() -> None:
    assert all(ACCELERATORS[name].rules for name in PROFILES)


def test_lint_excluded_nodes_may_be_float() -> None:
    model = quantized(refine_model(), IMAGES, "ort", frozenset({"conv2", "add"}))
    assert found(model, "ort") == {"float-weight": {"conv2"}}
    set_metadata(model, {"kept_float": '["conv2", "add"]'})
    assert lint(model, "ort") == []


@pytest.mark.filterwarnings("ignore")
def test_lint_static_default_is_signed_and_per_tensor(tmp_path: Path) -> None:
    model = static(tmp_path)
    assert found(model, "ort").keys() == {"activation-type"}
    assert found(model, "openvino") == {
        "weight-channels": {"conv1", "conv2", "depthwise", "classifier"}
    }
    assert found(model, "ort-arm") == {}


@pytest.mark.filterwarnings("ignore")
def test_lint_static_unsigned_breaks_what_other_targets_want(tmp_path: Path) -> None:
    model = static(
        tmp_path,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    assert found(model, "ort") == {}
    assert found(model, "ort-avx2") == {
        "weight-range": {"conv1", "conv2", "depthwise", "classifier"}
    }
    tensorrt = found(model, "tensorrt")
    assert tensorrt["bias-form"] == {"conv1", "conv2", "classifier"}
    assert "image_QuantizeLinear" in tensorrt["zero-point"]
    assert tensorrt["resize-input"] == {"resize"}
    assert tensorrt["quantized-output"] == {"logits_DequantizeLinear"}
    assert {"power-of-two", "bias-form", "zero-point"} <= found(model, "pow2").keys()


@pytest.mark.filterwarnings("ignore")
def test_lint_static_symmetric_leaves_a_relu_in_float(tmp_path: Path) -> None:
    model = static(
        tmp_path,
        activation_type=QuantType.QInt8,
        extra_options={"ActivationSymmetric": True},
    )
    assert found(model, "ort-arm")["separate-activation"] >= {"relu1", "relu4"}


@pytest.mark.filterwarnings("ignore")
def test_lint_static_of_some_operators_names_those_in_float(tmp_path: Path) -> None:
    model = static(tmp_path, op_types_to_quantize=["Conv"], activation_type=QuantType.QUInt8)
    rules = found(model, "ort")
    assert rules["float-input"] == {"pool", "add", "add_linear"}


def test_lint_add_that_could_be_in_its_convolution() -> None:
    model = quantized(residual_model(), IMAGES)
    assert found(model, "tensorrt")["residual"] == {"identity_add", "projection_add"}


def test_lint_add_whose_other_branch_is_float_is_found() -> None:
    model = quantized(residual_model(), IMAGES, "tensorrt")
    add = node(model, "identity_add")
    add.input[1] = "a_float"
    assert found(model, "tensorrt") == {"float-input": {"identity_add"}}


def change_pool_scale(model: onnx.ModelProto) -> None:
    value = numpy_helper.from_array(np.float32(0.125), "other_scale")
    model.graph.initializer.append(value)
    for name in ("p1_quantized/QuantizeLinear", "p1_dequantized/DequantizeLinear"):
        node(model, name).input[1] = "other_scale"


def narrow_clip(model: onnx.ModelProto) -> None:
    set_constant(model, "high", np.float32(1e-3))


def widen_bias_scale(model: onnx.ModelProto) -> None:
    name = "conv1.bias_scale"
    set_constant(model, name, constant(model, name) * np.float32(1.01))


def saturate_bias(model: onnx.ModelProto) -> None:
    name = "conv1.bias_quantized"
    set_constant(model, name, np.full_like(constant(model, name), 2**31 - 1))


def unsigned_weight(model: onnx.ModelProto) -> None:
    for name in ("conv1.weight_quantized", "conv1.weight_zero_point"):
        set_constant(model, name, constant(model, name).astype(np.uint8))


def turn_weight_axis(model: onnx.ModelProto) -> None:
    weight = node(model, "classifier.weight_dequantized/DequantizeLinear")
    weight.attribute[0].i = 1
    for name, dtype in (("scale", np.float32), ("zero_point", np.int8)):
        set_constant(model, f"classifier.weight_{name}", np.zeros(8, dtype))


def read_result_in_float(model: onnx.ModelProto) -> None:
    node(model, "resize").input[0] = "c3_float"


def free_size(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"


def offset_scale(model: onnx.ModelProto) -> None:
    set_constant(model, "image_scale", constant(model, "image_scale") * np.float32(1.5))


@pytest.mark.parametrize(
    ("target", "change", "rule", "where"),
    [
        ("ort", change_pool_scale, "changed-scale", "pool"),
        ("qnn", change_pool_scale, "changed-scale", "pool"),
        ("ort", narrow_clip, "separate-activation", "clip"),
        ("ort", widen_bias_scale, "bias-form", "conv1"),
        ("ort", saturate_bias, "bias-range", "conv1"),
        ("ort", unsigned_weight, "weight-type", "conv1"),
        ("openvino", turn_weight_axis, "weight-axis", "classifier"),
        ("ort", read_result_in_float, "float-input", "resize"),
        ("ort", read_result_in_float, "float-result", "depthwise"),
        ("qnn", free_size, "fixed-shape", "image"),
        ("pow2", offset_scale, "power-of-two", "image_quantized/QuantizeLinear"),
    ],
)
def test_lint_broken_rule_is_named_at_its_node(
    target: str, change: Change, rule: str, where: str
) -> None:
    model = quantized(refine_model(), IMAGES, target)
    change(model)
    assert where in found(model, target)[rule]


def test_lint_only_convolutions_have_quantized_inputs_in_ncnn() -> None:
    rules = found(quantized(refine_model(), IMAGES, "tensorrt"), "ncnn")
    assert rules["quantized-input"] >= {"pool", "add_linear"}
    assert rules.keys() == {"quantized-input"}


def test_lint_groups_with_several_scales_are_found_for_ncnn() -> None:
    weight = np.random.default_rng(0).standard_normal((6, 1, 3, 3), dtype=np.float32)
    nodes = [helper.make_node("Conv", ["image", "w"], ["logits"], name="wide", group=3)]
    model = quantized(make_model(nodes, {"w": weight}), IMAGES, "tensorrt")
    assert found(model, "ncnn") == {"group-scale": {"wide"}}


def test_lint_concat_of_different_scales() -> None:
    q, dq = "QuantizeLinear", "DequantizeLinear"
    model = make_model(
        [
            helper.make_node(q, ["image", "s1", "z"], ["q1"]),
            helper.make_node(dq, ["q1", "s1", "z"], ["d1"]),
            helper.make_node(q, ["image", "s2", "z"], ["q2"]),
            helper.make_node(dq, ["q2", "s2", "z"], ["d2"]),
            helper.make_node("Concat", ["d1", "d2"], ["c"], name="concat", axis=1),
            helper.make_node("Conv", ["c", "w"], ["logits"]),
        ],
        {
            "s1": np.float32(1),
            "s2": np.float32(2),
            "z": np.uint8(0),
            "w": np.ones((2, 6, 1, 1), np.float32),
        },
    )
    assert found(model, "openvino")["concat-scale"] == {"concat"}


def test_lint_float_graph_is_float_all_over() -> None:
    rules = found(refine_model(), "tensorrt")
    assert rules["float-weight"] == {"conv1", "conv2", "depthwise", "classifier"}


def test_lint_unknown_target_is_refused() -> None:
    with pytest.raises(DeployError, match="no target 'npu'"):
        lint(refine_model(), "npu")


@pytest.mark.filterwarnings("ignore")
def test_lint_integer_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"holds QLinearConv.*QDQ format"):
        lint(static(tmp_path, quant_format=QuantFormat.QOperator), "ort")


def test_lint_graph_without_convolution_is_refused() -> None:
    model = make_model([helper.make_node("Relu", ["image"], ["logits"])], {})
    with pytest.raises(GraphError, match="no convolution"):
        lint(model, "ort")


def test_lint_computed_scale_is_refused() -> None:
    model = make_model(
        [
            helper.make_node("ReduceMax", ["image"], ["scale"], keepdims=0),
            helper.make_node("QuantizeLinear", ["image", "scale"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "scale"], ["d"], name="dequantize"),
            helper.make_node("Conv", ["d", "w"], ["logits"]),
        ],
        {"w": np.ones((2, 3, 1, 1), np.float32)},
    )
    with pytest.raises(GraphError, match="dequantize: scale is no constant"):
        lint(model, "ort")


def test_lint_broken_metadata_are_refused() -> None:
    model = quantized(refine_model(), IMAGES)
    set_metadata(model, {"kept_float": "conv1"})
    with pytest.raises(GraphError, match="kept_float is no JSON list"):
        lint(model, "ort")
