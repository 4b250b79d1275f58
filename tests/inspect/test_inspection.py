import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graphs import make_model, quantized, refine_model
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from deploy.cli import main
from deploy.errors import DeployError, GraphError
from deploy.graph.graph import Graph
from deploy.graph.metadata import set_metadata
from deploy.inspect.inspection import Inspection, inspect
from deploy.quantize.fp16 import convert_fp16

IMAGE = np.random.default_rng(0).standard_normal((1, 3, 16, 16), dtype=np.float32)
# conv1, conv2, depthwise, classifier of refine_model(): outputs times the values of each
MACS = 8 * 256 * 27 + 8 * 64 * 8 + 8 * 64 * 9 + 4 * 256 * 72
PARAMETERS = 8 * 27 + 8 + 8 * 8 + 8 + 8 * 9 + 4 * 72 + 4


def inspect_model(model: onnx.ModelProto, path: Path, **options: Any) -> Inspection:
    """Save and inspect a graph."""
    onnx.save(model, path)
    (found,) = inspect(str(path), **options)
    return found


class OneImage(CalibrationDataReader):  # type: ignore[misc]
    """What onnxruntime's own quantizer calibrates on."""

    def __init__(self) -> None:
        self.images = [{"image": IMAGE}]

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return self.images.pop() if self.images else None


def quantize_with_onnxruntime(folder: Path, form: QuantFormat) -> Path:
    """Return the path of what onnxruntime's quantizer makes of the tiny network."""
    source, result = folder / "source.onnx", folder / f"{form.name}.onnx"
    onnx.save(refine_model(), source)
    quantize_static(
        source,
        result,
        OneImage(),
        quant_format=form,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return result


def test_float_graph_has_its_work_and_parameters(tmp_path: Path) -> None:
    found = inspect_model(refine_model(), tmp_path / "net.onnx")
    assert (found.form, found.macs, found.parameters) == ("float32", MACS, PARAMETERS)
    assert found.share("float", of_work=True) == 1
    assert found.inputs[0].shape == [1, 3, 16, 16]
    assert (found.inputs[0].type, found.outputs[0].name) == ("float32", "logits")
    assert (found.before, found.target, found.findings) == (None, None, [])
    assert found.suspicions == []


@pytest.mark.parametrize("target", ["ort", "openvino", "pow2", "qnn"])
def test_int8_graph_computes_all_in_integers_and_obeys_its_target(
    target: str, tmp_path: Path
) -> None:
    model = quantized(refine_model(), [IMAGE], target)
    set_metadata(model, {"target": target})
    found = inspect_model(model, tmp_path / "int8.onnx")
    assert found.form == "QDQ"
    assert (found.macs, found.parameters) == (MACS, PARAMETERS)
    assert found.share("integers", of_work=False) == 1
    assert found.share("integers", of_work=True) == 1
    assert (found.target, found.findings, found.suspicions) == (target, [], [])
    assert len(found.weights) == 4
    assert all(weight.symmetric for weight in found.weights)
    assert {weight.scales > 1 for weight in found.weights} == {target != "pow2"}


def test_tensorrt_graph_names_what_its_target_leaves_in_float(tmp_path: Path) -> None:
    model = quantized(refine_model(), [IMAGE], "tensorrt")
    set_metadata(model, {"target": "tensorrt"})
    found = inspect_model(model, tmp_path / "int8.onnx", rules="ort")
    in_float = {node.node: node.reason for node in found.nodes if node.numbers == "float"}
    assert in_float == {"resize": "Resize computes in float on target tensorrt"}
    assert found.target == "ort"
    assert {"bias-form", "activation-type"} <= {finding.rule for finding in found.findings}


def test_nodes_kept_in_float_on_purpose_say_so_with_their_work(tmp_path: Path) -> None:
    model = quantized(refine_model(), [IMAGE], exclude=frozenset({"conv1", "classifier"}))
    set_metadata(model, {"target": "ort", "kept_float": '["classifier", "conv1"]'})
    found = inspect_model(model, tmp_path / "int8.onnx")
    reasons = {node.node: node.reason for node in found.nodes if node.numbers == "float"}
    assert reasons["classifier"] == "kept in float on purpose: its weight w4 is float"
    assert reasons["relu1"] == "the Conv before it does"
    assert found.share("float", of_work=True) == pytest.approx((8 * 256 * 27 + 4 * 256 * 72) / MACS)


def test_half_graph_says_how_much_is_in_half(tmp_path: Path) -> None:
    half = convert_fp16(Graph(refine_model()), {"c3": 1e6}).model
    found = inspect_model(half, tmp_path / "fp16.onnx")
    assert (found.form, found.macs) == ("float16", MACS)
    assert found.share("half", of_work=True) == pytest.approx(1 - 8 * 64 * 9 / MACS)


def test_graphs_of_onnxruntimes_quantizer_are_read_alike_in_both_forms(tmp_path: Path) -> None:
    found = {}
    for form in (QuantFormat.QDQ, QuantFormat.QOperator):
        (found[form.name],) = inspect(str(quantize_with_onnxruntime(tmp_path, form)))
    qdq, operators = found["QDQ"], found["QOperator"]
    assert (qdq.form, operators.form) == ("QDQ", "QOperator")
    assert qdq.macs == operators.macs == MACS
    assert operators.parameters == PARAMETERS
    for result in (qdq, operators):
        assert result.share("integers", of_work=True) == 1
        assert result.suspicions == []
    ranges = [
        {(round(t.low, 4), round(t.high, 4)) for t in result.activations}
        for result in (qdq, operators)
    ]
    assert ranges[1] <= ranges[0]
    assert len(ranges[1]) >= 6
    assert [w.largest_value for w in qdq.weights] == [w.largest_value for w in operators.weights]
    assert qdq.unchecked is None
    assert "QLinearConv" in str(operators.unchecked)


def test_ranges_are_what_the_integers_can_stand_for(tmp_path: Path) -> None:
    found = inspect_model(quantized(refine_model(), [IMAGE]), tmp_path / "int8.onnx")
    image = next(tensor for tensor in found.activations if tensor.tensor == "image")
    assert image.type == "uint8"
    assert image.low == pytest.approx(-image.zero_point * image.scale)
    assert image.high == pytest.approx((255 - image.zero_point) * image.scale)
    assert image.low == pytest.approx(IMAGE.min(), abs=image.scale)


def test_work_of_matrix_products_and_of_shapes_that_are_open(tmp_path: Path) -> None:
    node = helper.make_node
    nodes = [
        node("Flatten", ["image"], ["f"]),
        node("Gemm", ["f", "a"], ["g"], transB=1),
        node("MatMul", ["g", "b"], ["logits"]),
    ]
    constants = {
        "a": np.zeros((5, 12), dtype=np.float32),
        "b": np.zeros((5, 7), dtype=np.float32),
    }
    model = make_model(nodes, constants, input_shape=("n", 3, 2, 2))
    found = inspect_model(model, tmp_path / "products.onnx")
    assert found.macs == 5 * 12 + 5 * 7
    model = make_model([node("Flatten", ["image"], ["logits"])], {}, input_shape=(1, 3, 2, 2))
    assert inspect_model(model, tmp_path / "none.onnx").macs == 0
    conv = [node("Conv", ["image", "w"], ["logits"])]
    weight = {"w": np.zeros((4, 3, 1, 1), dtype=np.float32)}
    model = make_model(conv, weight, input_shape=(1, 3, "h", "w"))
    found = inspect_model(model, tmp_path / "open.onnx")
    assert (found.macs, found.share("float", of_work=True)) == (None, None)
    assert found.inputs[0].shape == [1, 3, "h", "w"]


def with_constant(
    model: onnx.ModelProto, name: str, change: Callable[[NDArray[Any]], NDArray[Any]]
) -> onnx.ModelProto:
    """Return a copy in which an initializer has other values."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    (tensor,) = [t for t in copy.graph.initializer if t.name == name]
    old = numpy_helper.to_array(tensor)
    new = np.asarray(change(old), dtype=old.dtype).reshape(old.shape)
    tensor.CopyFrom(numpy_helper.from_array(new, name))
    return copy


def scale_of(model: onnx.ModelProto, op_type: str, place: int, name: str, part: int) -> str:
    """Return what stands at a place of the Q/DQ before (or of the weight of) a node."""
    graph = Graph(model)
    (node,) = [n for n in model.graph.node if n.name == name]
    maker = graph.producers[node.input[place]]
    assert maker.op_type == op_type
    return str(maker.input[part])


def at_first(value: float) -> Callable[[NDArray[Any]], NDArray[Any]]:
    def change(values: NDArray[Any]) -> NDArray[Any]:
        changed = values.copy()
        changed[0] = value
        return changed

    return change


@pytest.mark.parametrize(
    ("place", "part", "change", "what", "problem"),
    [
        (0, 1, lambda _: 0.0, "scale", "scale is 0: it must be above 0"),
        (0, 1, lambda _: -1.0, "scale", "scale is -1"),
        (0, 1, lambda _: np.inf, "scale", "scale is not finite"),
        (0, 1, lambda _: 1e-40, "scale", "is denormal in float32"),
        (0, 1, lambda _: 1e5, "range", "is huge"),
        (0, 1, lambda s: 100 * s, "far-range", "times as large as those next to it"),
        (0, 1, lambda s: s / 1000, "far-range", "times as small as those next to it"),
        (1, 1, at_first(0.0), "weight-scale", "scale is 0"),
        (1, 0, at_first(0), "dead-channels", "1 of 4 output channels are all 0"),
        (1, 0, lambda q: q.clip(-3, 3), "coarse-channels", "4 of 4 output channels use no more"),
        (2, 0, at_first(2**31 - 1), "bias-overflow", "1 biases are at the limit of 32 bits"),
        (2, 0, at_first(2**31 - 9999), "accumulator-overflow", "sums of 1 of 4 output channels"),
    ],
)
def test_scales_that_look_wrong_are_found(
    place: int,
    part: int,
    change: Callable[[NDArray[Any]], NDArray[Any]],
    what: str,
    problem: str,
    tmp_path: Path,
) -> None:
    model = quantized(refine_model(), [IMAGE])
    name = scale_of(model, "DequantizeLinear", place, "classifier", part)
    found = inspect_model(with_constant(model, name, change), tmp_path / "odd.onnx")
    problems = [s.problem for s in found.suspicions if s.what == what]
    assert any(problem in text for text in problems), found.suspicions


def test_scales_that_are_no_constants_are_counted(tmp_path: Path) -> None:
    model = quantized(refine_model(), [IMAGE])
    name = scale_of(model, "DequantizeLinear", 0, "classifier", 1)
    takers = [n for n in model.graph.node if name in n.input]
    (old,) = [t for t in model.graph.initializer if t.name == name]
    model.graph.node.insert(0, helper.make_node("Abs", [name], ["computed"], name="abs"))
    for node in takers:
        node.input[1] = "computed"
    found = inspect_model(model, tmp_path / "computed.onnx")
    assert found.unreadable_scales == len(takers)
    assert old.name not in {tensor.tensor for tensor in found.activations}
    assert "is no constant" in str(found.unchecked)


def test_the_float_graph_beside_it_is_what_was_before(tmp_path: Path) -> None:
    onnx.save(refine_model(), tmp_path / "fp32.onnx")
    model = quantized(refine_model(), [IMAGE])
    set_metadata(model, {"source_sha256": Graph(refine_model()).sha256})
    found = inspect_model(model, tmp_path / "int8.onnx")
    assert found.before is not None
    assert found.before.operators["Conv"] == 4
    assert found.before.is_source is True
    onnx.save(refine_model(seed=1), tmp_path / "fp32.onnx")
    (found,) = inspect(str(tmp_path / "int8.onnx"))
    assert found.before is not None
    assert found.before.is_source is False


def test_a_variant_is_every_graph_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "rf-lw50"
    folder.mkdir()
    onnx.save(refine_model(), folder / "fp32.onnx")
    onnx.save(quantized(refine_model(), [IMAGE]), folder / "int8.onnx")
    found = inspect("rf-lw50", out=tmp_path)
    assert [result.path.name for result in found] == ["fp32.onnx", "int8.onnx"]
    with pytest.raises(DeployError, match="run 'deploy export rf101'"):
        inspect("rf101", out=tmp_path)
    with pytest.raises(GraphError, match="no ONNX file at"):
        inspect("none.onnx")
    with pytest.raises(DeployError, match="no target 'npu'"):
        inspect("rf-lw50", out=tmp_path, rules="npu")


def test_graph_of_16_bits_and_without_zero_points_is_read(tmp_path: Path) -> None:
    node = helper.make_node
    nodes = [
        node("QuantizeLinear", ["image", "s"], ["q"], name="q", output_dtype=TensorProto.UINT16),
        node("DequantizeLinear", ["q", "s"], ["d"], name="d"),
        node("Relu", ["d"], ["logits"], name="relu"),
    ]
    model = make_model(nodes, {"s": np.float32(0.001)}, opset=21)
    found = inspect_model(model, tmp_path / "sixteen.onnx")
    assert [(t.type, t.low) for t in found.activations] == [("uint16", 0.0)]
    assert found.activations[0].high == pytest.approx(65.535)
    assert found.nodes[0].numbers == "integers"
    assert "no convolution" in str(found.unchecked)


def run(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    monkeypatch.setattr(sys, "argv", ["deploy", *arguments])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert not exit_.value.code
    return capsys.readouterr().out


OUTPUT = """\
int8.onnx: QDQ, 0.0 MB, opset 18, tests
  input   image float32 1x3x16x16
  output  logits float32 1x4x16x16
  cost    660 parameters, 137,728 multiply-accumulates
  target                tensorrt

operators

 operator          nodes
 ───────────────────────
 DequantizeLinear     11
 QuantizeLinear        7
 Conv                  4
 Add                   2
 Relu                  2
 Clip                  1
 MaxPool               1
 Resize                1

in integers: 90.9% of the nodes, 100.0% of the multiply-accumulates
in float: 1 Resize
  resize (Resize): Resize computes in float on target tensorrt
"""


def test_output_is_whole_at_width_80(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    model = quantized(refine_model(), [IMAGE], "tensorrt")
    model.producer_name = "tests"
    set_metadata(model, {"target": "tensorrt"})
    onnx.save(model, "int8.onnx")
    out = run(["inspect", "int8.onnx", "--tensors"], monkeypatch, capsys)
    lines = [line.rstrip() for line in out.splitlines()]
    assert "\n".join(lines).startswith(OUTPUT)
    assert lines[lines.index(" tensor    type     low   high    scale  zero") + 2].split()[:2] == [
        "image",
        "int8",
    ]
    assert lines[-2:] == ["no scale looks wrong", "rules of target tensorrt: clean"]
    content = json.loads(run(["inspect", "int8.onnx", "--json"], monkeypatch, capsys))
    assert content[0]["macs"] == MACS
    assert content[0]["shares"]["integers"]["macs"] == 1
    assert content[0]["activations"][0]["zero_point"] == 0
