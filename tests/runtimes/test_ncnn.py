"""ncnn: graphs translated by us, run by ncnn itself where it is installed."""

from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import make_model, quantized, refine_model, run
from onnx import helper
from toolchains import needs_ncnn

import deploy
from deploy import models
from deploy.calibration.scenes import write_scenes
from deploy.errors import DeployError, GraphError
from deploy.graph.graph import Graph, giving
from deploy.quantize.fp16 import convert_fp16
from deploy.runtimes import ncnn, packages
from deploy.runtimes.ncnn import NcnnRunner
from deploy.runtimes.ncnn_files import weight_bytes
from deploy.runtimes.ncnn_model import translate
from deploy.runtimes.open import find_backend
from deploy.runtimes.runner import Runtime

IMAGE = np.random.default_rng(1).standard_normal((1, 3, 16, 16), dtype=np.float32)
INT8, HALF = (tag.to_bytes(4, "little") for tag in (0x000D4B38, 0x01306B47))


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def conv_model(
    weight: np.ndarray, size: tuple[int, int] = (16, 16), **given: object
) -> onnx.ModelProto:
    nodes = [helper.make_node("Conv", ["image", "w"], ["logits"], name="conv", **given)]
    return make_model(nodes, {"w": weight}, input_shape=(1, 3, *size))


def test_weights_are_tagged_and_filled_up_to_four_bytes() -> None:
    assert weight_bytes(np.array([1, -2, 3], np.int8)) == INT8 + b"\x01\xfe\x03\x00"
    assert weight_bytes(np.array([1.0], np.float16)) == HALF + b"\x00\x3c\x00\x00"
    assert weight_bytes(np.array([1.0], np.float32)) == b"\x00\x00\x00\x00\x00\x00\x80\x3f"


def test_integers_and_scales_are_those_of_the_graph_bit_for_bit() -> None:
    model = quantized(refine_model(), [IMAGE], "ncnn")
    constants, found = Graph(model).constants, translate(model).bin
    for name in ("conv1", "conv2", "depthwise", "classifier"):
        assert constants[f"{name}.weight_quantized"].tobytes() in found
        assert (1 / constants[f"{name}.weight_scale"].astype("f8")).astype("f4").tobytes() in found
    assert found.startswith(INT8 + constants["conv1.weight_quantized"].tobytes())
    input_scale = (1 / constants["image_scale"].astype("f8")).astype("f4").tobytes()
    assert input_scale in found


def test_what_several_layers_take_is_split_and_int8_winograd_is_masked() -> None:
    lines = translate(quantized(refine_model(), [IMAGE], "ncnn")).param.splitlines()
    assert lines[:2] == ["7767517", "12 14"]
    assert "Split r1_split 1 2 r1 r1_split_0 r1_split_1" in lines
    takers = [line for line in lines if " r1" in line and not line.startswith(("Split", "Conv"))]
    assert all(" r1 " not in line for line in takers)
    masked = [line.split()[1] for line in lines if line.endswith(" 31=64")]
    assert masked == ["conv1", "depthwise", "classifier"]


def test_halves_are_stored_as_halves_and_casts_are_none() -> None:
    half = convert_fp16(Graph(refine_model()), {}).model
    found = translate(half)
    assert found.bin.startswith(HALF)
    assert (found.input, found.output) == ("image", "logits")
    assert len(found.bin) < 0.7 * len(translate(refine_model()).bin)


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
    ],
    ids=lambda value: value.op_type if isinstance(value, onnx.NodeProto) else "",
)
def test_what_has_no_form_is_one_line_that_names_the_node(node: onnx.NodeProto, line: str) -> None:
    nodes = [helper.make_node("Conv", ["image", "w"], ["c"], name="conv"), node]
    constants = {
        "w": np.ones((3, 3, 1, 1), np.float32),
        "k": np.ones((1, 3, 16, 16), np.float32),
        "x2": np.array([1, 1, 2, 2], np.float32),
    }
    wanted = {name: constants[name] for n in nodes for name in n.input if name in constants}
    with pytest.raises(GraphError) as caught:
        translate(make_model(nodes, wanted))
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"ncnn does not take {line}")


def test_a_graph_for_another_target_is_refused_with_what_makes_the_right_one() -> None:
    with pytest.raises(GraphError, match=r"^ncnn does not take .* --int8 --target ncnn' makes"):
        translate(quantized(refine_model(), [IMAGE]))


def test_groups_with_several_scales_are_kept_float_or_refused() -> None:
    weight = np.random.default_rng(0).standard_normal((6, 1, 3, 3), dtype=np.float32)
    model = conv_model(weight, group=3)
    with pytest.raises(GraphError, match="ncnn has one weight scale for each of its 3 groups"):
        translate(quantized(model, [IMAGE], "tensorrt"))
    wide = make_model(
        [
            helper.make_node("Conv", ["image", "w"], ["c"], name="wide", group=3),
            helper.make_node("Conv", ["c", "v"], ["logits"], name="conv"),
        ],
        {"w": weight, "v": np.ones((2, 6, 1, 1), np.float32)},
    )
    found = translate(quantized(wide, [IMAGE], "ncnn"))
    assert found.integer_convolutions == {"conv"}


def test_what_is_not_installed_or_not_known_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> str:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(packages, "version", missing)
    with pytest.raises(DeployError, match=r"^ncnn is not installed: run \"pip install"):
        find_backend(Runtime.NCNN)
    monkeypatch.setattr(packages, "version", lambda _: "2.0.1")
    with pytest.raises(DeployError, match=r"^ncnn 2.0.1 is installed, 1.0 is what"):
        find_backend(Runtime.NCNN)


@needs_ncnn
def test_float_graph_gives_what_onnxruntime_does(tmp_path: Path) -> None:
    expected = run(refine_model(), IMAGE)[0]
    found = NcnnRunner(saved(refine_model(), tmp_path))(IMAGE)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-5 * np.ptp(expected)


@needs_ncnn
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
        helper.make_node("Resize", ["c", "", "", "sizes"], ["logits"], mode="linear"),
        helper.make_node(
            *("Resize", ["c", "", "", "sizes"], ["logits"]),
            mode="linear",
            coordinate_transformation_mode="align_corners",
        ),
        helper.make_node("Clip", ["c", "low"], ["logits"]),
        helper.make_node("Add", ["c", "c"], ["logits"]),
    ],
)
def test_each_operator_gives_what_onnxruntime_does(node: onnx.NodeProto, tmp_path: Path) -> None:
    node = onnx.NodeProto.FromString(node.SerializeToString())
    node.name = "it"
    conv = helper.make_node(
        *("Conv", ["image", "w"], ["c"], "conv"),
        strides=[1, 2],
        pads=[2, 0, 1, 1],
        dilations=[2, 1],
    )
    constants = {
        "w": np.random.default_rng(0).standard_normal((5, 3, 3, 2), dtype=np.float32),
        "sizes": np.array([1, 5, 31, 23], np.int64),
        "low": np.float32(0.5),
    }
    wanted = {k: v for k, v in constants.items() if k == "w" or k in node.input}
    model = make_model([conv, node], wanted, input_shape=(1, 3, 14, 17))
    image = np.random.default_rng(2).standard_normal((1, 3, 14, 17), dtype=np.float32)
    expected = run(model, image)[0]
    found = NcnnRunner(saved(model, tmp_path))(image)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-5 * np.ptp(expected)


@needs_ncnn
def test_every_convolution_computes_in_our_integers(tmp_path: Path) -> None:
    model = quantized(refine_model(), [IMAGE], "ncnn")
    runner = NcnnRunner(saved(model, tmp_path))
    execution = runner.execution()
    assert (execution.integer_convolutions, execution.convolutions) == (4, 4)
    found, expected = runner(IMAGE), run(model, IMAGE)[0]
    assert np.abs(found - expected).max() < 2 * np.ptp(expected) / 255
    # the first layer, whose input no rounding before it changes, to float32's last digits
    with giving(model, ["r1"]) as first:
        exact = run(first, IMAGE)[0]
    np.testing.assert_allclose(runner.blob(IMAGE, "r1"), exact, rtol=1e-5, atol=1e-6)


@needs_ncnn
def test_sums_beyond_16_bits_are_exact(tmp_path: Path) -> None:
    # ncnn's int8 Winograd kernels are for weights of 6 bits: without the mask they overflow
    channels = 64
    ones = np.ones((channels, 3, 1, 1), np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "one"], ["c"], name="spread"),
        helper.make_node("Conv", ["c", "w"], ["logits"], name="conv", pads=[1, 1, 1, 1]),
    ]
    model = make_model(nodes, {"one": ones, "w": np.ones((channels, channels, 3, 3), np.float32)})
    image = np.ones((1, 3, 16, 16), np.float32)
    graph = quantized(model, [image], "ncnn")
    found = NcnnRunner(saved(graph, tmp_path))(image)
    expected = run(graph, image)[0]
    assert np.abs(found - expected).max() < 1e-4 * np.ptp(expected)


@needs_ncnn
def test_layers_by_default_are_78_of_78_in_8_bits(tmp_path: Path) -> None:
    root, out = write_scenes(tmp_path / "scenes", train=2, val=2, seed=1), tmp_path / "artifacts"
    deploy.export(models.DEFAULT_VARIANT, out=out, input_size=(128, 128))
    deploy.quantize(
        [models.DEFAULT_VARIANT], target="ncnn", recipe="plain", images=2, voc_root=root, out=out
    )
    (measured,) = deploy.validate(
        [models.DEFAULT_VARIANT], runtime=Runtime.NCNN, voc_root=root, out=out
    )
    results = measured["results"]
    assert set(results) == {"torch", "fp32", "fp16", "int8-ncnn"}
    assert results["int8-ncnn"]["int8_convolutions"] == [78, 78]
    assert results["int8-ncnn"]["latency_ms"] > 0
    assert results["fp32"]["sqnr_db"] > 80


@needs_ncnn
def test_files_that_ncnn_does_not_read_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(refine_model(), tmp_path)
    whole = translate(refine_model())
    for change in ({"bin": whole.bin[:40]}, {"param": whole.param.replace("Pooling", "Swimming")}):
        broken = type(whole)(**{**vars(whole), **change})
        monkeypatch.setattr(ncnn, "translate", lambda _, broken=broken: broken)
        with pytest.raises(GraphError, match=r"^ncnn cannot load .*model.onnx: ") as caught:
            NcnnRunner(path)
        assert "\n" not in str(caught.value)
