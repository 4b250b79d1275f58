"""LiteRT: graphs translated by us, run by LiteRT itself where it is installed."""

from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import make_model, quantized, refine_model, run
from onnx import helper, numpy_helper
from toolchains import needs_arm, needs_litert

import deploy
from deploy import models
from deploy.calibration.scenes import write_scenes
from deploy.errors import DeployError, GraphError
from deploy.graph.graph import Graph
from deploy.graph.requantized import keep_in_float
from deploy.quantize.fp16 import convert_fp16
from deploy.runtimes import litert, packages
from deploy.runtimes.litert import LiteRtRunner
from deploy.runtimes.litert_files import Tensor, TfLiteModel, file_of
from deploy.runtimes.litert_model import translate
from deploy.runtimes.litert_tape import Borders
from deploy.runtimes.open import find_backend
from deploy.runtimes.runner import Runtime
from deploy.toolchains.arm import CORES

IMAGE = np.random.default_rng(1).standard_normal((1, 3, 16, 16), dtype=np.float32)


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def named(model: TfLiteModel) -> dict[str, Tensor]:
    return {tensor.name: tensor for tensor in model.tensors}


def test_integers_and_scales_are_those_of_the_graph_bit_for_bit() -> None:
    model = quantized(refine_model(), [IMAGE], "litert")
    graph, found = Graph(model), named(translate(model))
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 4
    for node in convolutions:
        for name in node.input[1:3]:
            source = graph.producers[name]
            stored, scale = (graph.constants[each] for each in source.input[:2])
            tensor = found[name]
            assert tensor.quantization is not None
            assert tensor.data is not None
            values = tensor.data
            if values.ndim == 4:
                order = (3, 0, 1, 2) if tensor.quantization.axis == 3 else (0, 3, 1, 2)
                values = values.transpose(order)
            assert values.dtype == stored.dtype
            np.testing.assert_array_equal(values, stored)
            np.testing.assert_array_equal(tensor.quantization.scale, scale)
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            tensor = found[node.output[0]]
            assert tensor.quantization is not None
            assert tensor.quantization.scale == graph.constants[node.input[1]]
            assert tensor.quantization.zero_point == graph.constants[node.input[2]]


def test_everything_but_the_borders_is_in_8_bits() -> None:
    model = translate(quantized(refine_model(), [IMAGE], "litert"))
    kinds = [operator.name for operator in model.operators]
    assert (kinds[0], kinds[-1]) == ("QUANTIZE", "DEQUANTIZE")
    assert not {"QUANTIZE", "DEQUANTIZE"} & set(kinds[1:-1])
    images = [tensor for tensor in model.tensors if tensor.data is None]
    floats = [tensor.name for tensor in images if tensor.dtype == np.float32]
    assert floats == ["image", "logits"]


def test_uint8_borders_are_the_same_values_shifted() -> None:
    graph = quantized(refine_model(), [IMAGE], "litert")
    model, signed = translate(graph, Borders.UINT8), named(translate(graph))
    given, got = model.tensors[model.input], model.tensors[model.output]
    assert (given.dtype, got.dtype) == (np.uint8, np.uint8)
    before = signed["image_quantized"].quantization
    assert given.quantization is not None
    assert before is not None
    assert given.quantization.zero_point == before.zero_point + 128
    assert given.quantization.scale == before.scale
    with pytest.raises(GraphError, match=r"^uint8 borders: the image is not quantized"):
        translate(refine_model(), Borders.UINT8)


@pytest.mark.parametrize(
    ("node", "line"),
    [
        (helper.make_node("Sigmoid", ["c"], ["logits"], name="s"), "node s (Sigmoid)"),
        (helper.make_node("Add", ["c", "k"], ["logits"], name="a"), "node a (Add): two images"),
        (
            helper.make_node("Resize", ["c", "", "x2"], ["logits"], name="r", mode="nearest"),
            "node r (Resize): bilinear by",
        ),
        (
            helper.make_node(
                *("MaxPool", ["c"], ["logits"], "p"), kernel_shape=[2, 2], dilations=[2, 2]
            ),
            "node p (MaxPool): it gives indices, or is dilated",
        ),
        (helper.make_node("Clip", ["c", "low"], ["logits"], name="l"), "node l (Clip): of Clips"),
        (
            helper.make_node(
                *("AveragePool", ["c"], ["logits"], "m"),
                kernel_shape=[3, 3],
                pads=[1, 1, 1, 1],
                count_include_pad=1,
            ),
            "node m (AveragePool): LiteRT's means",
        ),
        (
            helper.make_node("Concat", ["c", "k"], ["logits"], name="j", axis=1),
            "node j (Concat): it joins whole images, or one of its inputs is constant",
        ),
    ],
    ids=lambda value: value.op_type if isinstance(value, onnx.NodeProto) else "",
)
def test_what_has_no_form_is_one_line_that_names_the_node(node: onnx.NodeProto, line: str) -> None:
    nodes = [helper.make_node("Conv", ["image", "w"], ["c"], name="conv"), node]
    constants = {
        "w": np.ones((3, 3, 1, 1), np.float32),
        "k": np.ones((1, 3, 16, 16), np.float32),
        "x2": np.array([1, 1, 2, 2], np.float32),
        "low": np.float32(0.5),
    }
    wanted = {name: constants[name] for n in nodes for name in n.input if name in constants}
    with pytest.raises(GraphError) as caught:
        translate(make_model(nodes, wanted))
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"LiteRT does not take {line}")


def test_a_graph_for_another_target_is_refused_with_what_makes_the_right_one() -> None:
    with pytest.raises(GraphError, match=r"^LiteRT does not take .* --int8 --target litert'"):
        translate(quantized(refine_model(), [IMAGE]))


def test_what_is_not_installed_or_not_known_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> str:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(packages, "version", missing)
    with pytest.raises(DeployError, match=r"^ai-edge-litert is not installed: run \"pip install"):
        find_backend(Runtime.LITERT)
    monkeypatch.setattr(packages, "version", lambda _: "3.0.0")
    with pytest.raises(DeployError, match=r"^ai-edge-litert 3.0.0 is installed, 2 is what"):
        find_backend(Runtime.LITERT)


@needs_litert
def test_float_graph_gives_what_onnxruntime_does(tmp_path: Path) -> None:
    expected = run(refine_model(), IMAGE)[0]
    runner = LiteRtRunner(saved(refine_model(), tmp_path))
    assert np.abs(runner(IMAGE) - expected).max() < 1e-5 * np.ptp(expected)
    assert runner.execution().integer_convolutions == 0


@needs_litert
def test_halves_are_stored_as_halves(tmp_path: Path) -> None:
    half, plain = convert_fp16(Graph(refine_model()), {}).model, refine_model()
    sizes = [len(file_of(translate(model))) for model in (half, plain)]
    weights = sum(4 * value.size for value in Graph(plain).constants.values() if value.ndim == 4)
    assert sizes[0] < sizes[1] - 0.4 * weights + 4096  # each half is dequantized by an operator
    found, expected = LiteRtRunner(saved(half, tmp_path))(IMAGE), run(plain, IMAGE)[0]
    assert np.abs(found - expected).max() < 5e-3 * np.ptp(expected)


@needs_litert
@pytest.mark.parametrize(
    "node",
    [
        helper.make_node(
            *("MaxPool", ["c"], ["logits"]),
            kernel_shape=[3, 3],
            strides=[2, 2],
            pads=[1, 1, 1, 1],
            ceil_mode=1,
        ),
        helper.make_node(
            *("MaxPool", ["c"], ["logits"]), kernel_shape=[3, 2], strides=[2, 1], pads=[0, 1, 1, 0]
        ),
        helper.make_node(
            *("AveragePool", ["c"], ["logits"]), kernel_shape=[3, 3], pads=[1, 1, 1, 1]
        ),
        helper.make_node(
            *("AveragePool", ["c"], ["logits"]),
            kernel_shape=[3, 3],
            strides=[2, 2],
            pads=[1, 1, 1, 1],
            ceil_mode=1,
        ),
        helper.make_node("Concat", ["c", "c"], ["logits"], axis=1),
        helper.make_node("Concat", ["c", "c"], ["logits"], axis=-1),
        helper.make_node("Resize", ["c", "", "", "sizes"], ["logits"], mode="linear"),
        helper.make_node(
            *("Resize", ["c", "", "", "sizes"], ["logits"]),
            mode="linear",
            coordinate_transformation_mode="align_corners",
        ),
        helper.make_node(
            *("Resize", ["c", "", "twice"], ["logits"]),
            mode="linear",
            coordinate_transformation_mode="asymmetric",
        ),
        helper.make_node("Clip", ["c", "zero", "six"], ["logits"]),
        helper.make_node("Relu", ["c"], ["logits"]),
        helper.make_node("Add", ["c", "c"], ["logits"]),
        helper.make_node("Conv", ["c", "groups"], ["logits"], group=5, pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["c", "k3"], ["logits"], strides=[2, 2], pads=[1, 1, 1, 1]),
    ],
    ids=lambda node: node.op_type,
)
def test_each_operator_gives_what_onnxruntime_does(node: onnx.NodeProto, tmp_path: Path) -> None:
    node = onnx.NodeProto.FromString(node.SerializeToString())
    node.name = "it"
    conv = helper.make_node(
        *("Conv", ["image", "w"], ["c"], "conv"),
        strides=[1, 2],
        pads=[2, 0, 1, 1],
    )
    random = np.random.default_rng(0)
    constants = {
        "w": random.standard_normal((5, 3, 3, 2), dtype=np.float32),
        "groups": random.standard_normal((10, 1, 3, 3), dtype=np.float32),
        "k3": random.standard_normal((4, 5, 3, 3), dtype=np.float32),
        "sizes": np.array([1, 5, 31, 23], np.int64),
        "twice": np.array([1, 1, 2, 2], np.float32),
        "zero": np.float32(0),
        "six": np.float32(6),
    }
    wanted = {k: v for k, v in constants.items() if k == "w" or k in node.input}
    model = make_model([conv, node], wanted, input_shape=(1, 3, 14, 17))
    image = np.random.default_rng(2).standard_normal((1, 3, 14, 17), dtype=np.float32)
    for form in (model, quantized(model, [image], "litert")):
        expected = run(form, image)[0]
        found = LiteRtRunner(saved(form, tmp_path))(image)
        assert found.shape == expected.shape
        scales = [numpy_helper.to_array(t) for t in form.graph.initializer if "_scale" in t.name]
        step = max((float(scale) for scale in scales if not scale.ndim), default=0.0)
        # one at most: it rounds in other places
        assert np.abs(found - expected).max() < 1e-5 * np.ptp(expected) + 1.01 * step


@needs_litert
def test_every_convolution_computes_in_our_integers(tmp_path: Path) -> None:
    model = quantized(refine_model(), [IMAGE], "litert")
    runner = LiteRtRunner(saved(model, tmp_path))
    execution = runner.execution()
    assert (execution.integer_convolutions, execution.convolutions) == (4, 4)
    assert execution.float_nodes == {}
    assert execution.conversions == 2
    found, expected = runner(IMAGE), run(model, IMAGE)[0]
    assert np.abs(found - expected).max() < 2 * np.ptp(expected) / 255


@needs_litert
def test_a_convolution_that_was_kept_float_computes_in_float(tmp_path: Path) -> None:
    model = quantized(refine_model(), [IMAGE], "litert", frozenset({"conv2"}))
    held = keep_in_float(model)
    assert "Max" in {node.op_type for node in held.graph.node}  # which changes nothing
    for graph in (model, held):
        runner = LiteRtRunner(saved(graph, tmp_path))
        execution = runner.execution()
        assert execution.integer_convolutions == 3
        assert len(execution.float_convolutions) == 1
        expected = run(held, IMAGE)[0]
        assert np.abs(runner(IMAGE) - expected).max() < 2 * np.ptp(expected) / 255


@needs_litert
def test_layer_by_layer_it_gives_the_graphs_values(tmp_path: Path) -> None:
    model = quantized(refine_model(), [IMAGE], "litert")
    graph = Graph(model)
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear" or node.input[0] == "image":
            continue
        (dequantizer,) = graph.consumers[node.output[0]][:1]
        name = dequantizer.output[0]
        cut = onnx.ModelProto()
        cut.CopyFrom(model)
        del cut.graph.output[:]
        cut.graph.output.append(
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, graph.shapes[name])
        )
        found, expected = LiteRtRunner(saved(cut, tmp_path))(IMAGE), run(cut, IMAGE)[0]
        steps = np.abs(found - expected) / graph.constants[node.input[1]]
        assert steps.max() < 2.5, node.name
        assert (steps > 0.5).mean() < 0.1, node.name


@needs_litert
def test_kernels_do_not_saturate(tmp_path: Path) -> None:
    # every product 127 * 127, of 64 channels: pairs of them do not fit 16 bits, nor do the sums
    ones = np.ones((64, 3, 1, 1), np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "one"], ["c"], name="spread"),
        helper.make_node("Conv", ["c", "w"], ["logits"], name="conv", pads=[1, 1, 1, 1]),
    ]
    model = make_model(nodes, {"one": ones, "w": np.ones((64, 64, 3, 3), np.float32)})
    image = np.ones((1, 3, 16, 16), np.float32)
    graph = quantized(model, [image], "litert")
    found, expected = LiteRtRunner(saved(graph, tmp_path))(image), run(graph, image)[0]
    assert np.abs(found - expected).max() <= 1.01 * np.ptp(expected) / 255


@needs_litert
@needs_arm
@pytest.mark.long
@pytest.mark.parametrize("core", ["cortex-a72", "neoverse-n1", "max"])
def test_its_arm_kernels_compute_our_integers(core: str, tmp_path: Path) -> None:
    model = quantized(refine_model(), [IMAGE], "litert")
    path = saved(model, tmp_path)
    runner = LiteRtRunner(path, core=CORES[core])
    assert runner.execution().integer_convolutions == 4
    expected = LiteRtRunner(path)(IMAGE)
    assert np.abs(runner(IMAGE) - expected).max() < 2 * np.ptp(expected) / 255


@needs_litert
def test_layers_by_default_are_78_of_78_in_8_bits(tmp_path: Path) -> None:
    root, out = write_scenes(tmp_path / "scenes", train=2, val=2, seed=1), tmp_path / "artifacts"
    deploy.export(models.DEFAULT_VARIANT, out=out, input_size=(128, 128))
    deploy.quantize(
        [models.DEFAULT_VARIANT],
        target="litert",
        vendor=True,
        recipe="plain",
        images=2,
        voc_root=root,
        out=out,
    )
    (measured,) = deploy.validate(
        [models.DEFAULT_VARIANT], runtime=Runtime.LITERT, voc_root=root, out=out
    )
    results = measured["results"]
    assert set(results) == {"torch", "fp32", "fp16", "int8-litert", "int8-litert-vendor"}
    assert results["int8-litert"]["int8_convolutions"] == [78, 78]
    assert results["int8-litert"]["latency_ms"] > 0
    assert results["fp32"]["sqnr_db"] > 80
    assert results["int8-litert"]["sqnr_db"] > results["int8-litert-vendor"]["sqnr_db"]


@needs_litert
def test_a_file_that_litert_does_not_read_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(refine_model(), tmp_path)
    whole = file_of(translate(refine_model()))
    for content in (whole[:40], b"TFL3" * 20):
        monkeypatch.setattr(litert, "file_of", lambda _, content=content: content)
        with pytest.raises(GraphError, match=r"^LiteRT cannot load .*model.onnx: ") as caught:
            LiteRtRunner(path)
        assert "\n" not in str(caught.value)
