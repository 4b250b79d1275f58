"""Graphs with another interface: what they give is what the plain one between our steps gives."""

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from graphs import make_model, quantized, refine_model
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image
from typer.testing import CliRunner

import deploy
from deploy import models
from deploy.calibration.preprocess import Fit, fit_image, logits_to_labels, normalize, resize_logits
from deploy.calibration.scenes import draw_scene, write_scenes
from deploy.cli import app
from deploy.errors import DeployError, ExportError, GraphError
from deploy.export.heads import prove_wrapped, run, wrap
from deploy.export.interface import Head, Interface
from deploy.graph.graph import count_ops
from deploy.graph.metadata import read_metadata, set_metadata
from deploy.graph.reading import read_graph
from deploy.quantize.gate import Gate
from deploy.quantize.recipe import RecipeName
from deploy.runtimes.openvino import OpenVinoRunner, openvino_core, openvino_saturates
from deploy.runtimes.torch import TorchRunner
from deploy.store.reuse import SEAL
from deploy.targets import PROFILES, lint

VARIANT = models.DEFAULT_VARIANT
SIZE = (66, 90)  # no multiple of 4: logits are 17 x 23
DEVICE = Interface(head=Head.LABELS, embed_preprocessing=True)
LABELS = ["Resize", "ArgMax", "Cast", "Cast"]  # by way of float, for TensorRT
INTERFACES = [Interface(head=h, embed_preprocessing=e) for h in Head for e in (False, True)][1:]


def label(interface: Interface) -> str:
    return interface.path(Path("x.onnx")).stem


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return artifacts with the default variant's float graph, and the one for a device."""
    out = tmp_path_factory.mktemp("artifacts")
    deploy.export(VARIANT, out=out, input_size=SIZE, interface=DEVICE)
    return out


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    """Return a drawn scene in which the network sees six classes, uint8 (66, 90, 3)."""
    jpeg, _ = draw_scene(seed=0, split="val", index=284)
    return fit_image(np.asarray(Image.open(io.BytesIO(jpeg))), Fit.SQUASH, SIZE)


def feed(image: NDArray[np.uint8], interface: Interface) -> NDArray[np.generic]:
    return image[None] if interface.embed_preprocessing else normalize(image)


def assert_same(
    found: NDArray[np.generic], logits: NDArray[np.float32], head: Head, tolerance: float
) -> None:
    """Compare with our own steps on logits (C, h, w); ``tolerance`` is a share of their range."""
    absolute = tolerance * float(np.ptp(logits))
    if head is Head.LOGITS:
        return np.testing.assert_allclose(found[0], logits, rtol=0, atol=absolute)
    resized = resize_logits(logits, SIZE)
    if head is Head.UPSAMPLED:
        return np.testing.assert_allclose(found[0], resized, rtol=0, atol=absolute)
    assert found.shape == (1, *SIZE)
    assert found.dtype == np.uint8
    second, first = np.sort(resized, axis=0)[-2:]
    clear = first - second > 2 * absolute  # no other class is as likely
    assert clear.mean() > 0.95
    np.testing.assert_array_equal(found[0][clear], logits_to_labels(logits, SIZE)[clear])
    return None


@pytest.mark.parametrize("size", [(66, 90), (64, 64), (17, 23), (500, 500)])
def test_resize_logits_is_torchs_bilinear_with_half_pixel_centres(size: tuple[int, int]) -> None:
    logits = np.random.default_rng(0).standard_normal((5, 17, 23)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(logits)[None], size, mode="bilinear", align_corners=False
    )
    np.testing.assert_allclose(resize_logits(logits, size), expected[0].numpy(), atol=2e-5)


@pytest.mark.parametrize("interface", INTERFACES, ids=label)
def test_wrap_fp32_gives_what_torch_and_our_steps_give(
    interface: Interface, exported: Path, image: NDArray[np.uint8]
) -> None:
    plain = read_graph(exported / VARIANT / "fp32.onnx")
    wrapped = wrap(plain, interface)
    onnx.checker.check_model(wrapped, full_check=True)
    module, _ = models.build_with_weights(VARIANT)
    logits = TorchRunner(module)(normalize(image))
    head = interface.head
    assert_same(run(wrapped, feed(image, interface))[0], logits, head, 1e-4)
    added = Counter(count_ops(wrapped))
    added.subtract(count_ops(plain))
    expected = Counter({Head.LOGITS: [], Head.UPSAMPLED: ["Resize"], Head.LABELS: LABELS}[head])
    if interface.embed_preprocessing:
        expected.update(["Cast", "Cast", "Transpose", "Mul", "Add"])  # by way of half, for HTP
    assert +added == expected


@pytest.mark.parametrize("interface", INTERFACES, ids=label)
def test_wrap_says_what_it_takes_and_gives(interface: Interface, exported: Path) -> None:
    plain = read_graph(exported / VARIANT / "fp32.onnx")
    wrapped = wrap(plain, interface)
    (given,), (result,) = wrapped.graph.input, wrapped.graph.output
    types = [v.type.tensor_type for v in (given, result)]
    shapes = [tuple(d.dim_value for d in t.shape.dim) for t in types]
    assert given.name == "image"
    assert result.name == interface.head.value
    assert shapes[0] == ((1, 66, 90, 3) if interface.embed_preprocessing else (1, 3, 66, 90))
    assert (types[0].elem_type == TensorProto.UINT8) is interface.embed_preprocessing
    assert (
        shapes[1]
        == {
            Head.LOGITS: (1, 21, 17, 23),
            Head.UPSAMPLED: (1, 21, 66, 90),
            Head.LABELS: (1, 66, 90),
        }[interface.head]
    )
    assert (types[1].elem_type == TensorProto.UINT8) is (interface.head is Head.LABELS)
    expected = read_metadata(plain)
    del expected[SEAL]  # says how the plain graph's bytes were made
    assert read_metadata(wrapped) == expected | {
        "head": interface.head.value,
        "preprocessing": "embedded" if interface.embed_preprocessing else "outside",
    }


@pytest.fixture(scope="module")
def reduced(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the variant's FP16 and INT8 graphs, plain and for a device."""
    root = write_scenes(tmp_path_factory.mktemp("scenes") / "s", train=2, val=1, seed=1)
    written = deploy.quantize(
        [VARIANT], images=2, voc_root=root, out=exported, interface=DEVICE, recipe=RecipeName.PLAIN
    )
    assert [w.path.name for w in written] == ["fp16.onnx", "int8.onnx"]
    return exported / VARIANT


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("interface", INTERFACES, ids=label)
def test_wrap_reduced_precision_gives_what_the_plain_graph_and_our_steps_give(
    interface: Interface, precision: str, reduced: Path, image: NDArray[np.uint8]
) -> None:
    plain = read_graph(reduced / f"{precision}.onnx")
    found = run(wrap(plain, interface), feed(image, interface))[0]
    logits = run(plain, normalize(image))[0]
    if interface.head is Head.LOGITS:
        np.testing.assert_array_equal(found, logits)  # the same bits
    assert_same(found, logits[0], interface.head, 1e-6)
    if interface.head is Head.LABELS:  # in 8 bits two classes can be equal in all but rounding
        assert (found[0] != logits_to_labels(logits[0], SIZE)).mean() < 1e-3


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_files_for_the_device_stand_beside_and_run_in_openvino(
    precision: str, reduced: Path, image: NDArray[np.uint8]
) -> None:
    pytest.importorskip("openvino")
    if precision == "int8" and openvino_saturates():
        pytest.skip("OpenVINO's 8-bit kernels saturate on this processor")
    hints = {"INFERENCE_PRECISION_HINT": "f32"}
    path = str(reduced / f"{precision}-labels-uint8.onnx")
    labels = openvino_core().compile_model(path, "CPU", hints)([image[None]])[0]
    logits = OpenVinoRunner(reduced / f"{precision}.onnx")(normalize(image))
    assert labels.dtype == np.uint8
    assert (labels[0] == logits_to_labels(logits, SIZE)).mean() > 0.998
    assert len(np.unique(labels)) > 3


def test_prove_wrapped_spoiled_graph_is_refused(exported: Path) -> None:
    plain = read_graph(exported / VARIANT / "fp32.onnx")
    for interface in INTERFACES:
        prove_wrapped(plain, wrap(plain, interface), interface)
    other_mean = wrap(plain, DEVICE)
    for tensor in other_mean.graph.initializer:
        if tensor.name == "preprocessing/shift":
            shift = onnx.numpy_helper.to_array(tensor) + np.float32(0.01)
            tensor.CopyFrom(onnx.numpy_helper.from_array(shift, tensor.name))
    with pytest.raises(ExportError, match=r"head labels is .* from the plain one's logits"):
        prove_wrapped(plain, other_mean, DEVICE)
    other_class = wrap(plain, DEVICE)
    (argmax,) = (n for n in other_class.graph.node if n.op_type == "ArgMax")
    argmax.op_type = "ArgMin"
    with pytest.raises(ExportError, match="labels are not its largest logits"):
        prove_wrapped(plain, other_class, DEVICE)
    interface = Interface(head=Head.UPSAMPLED)
    other_centres = wrap(plain, interface)
    (resize,) = (n for n in other_centres.graph.node if n.name == "head/Resize")
    (mode,) = (a for a in resize.attribute if a.name == "coordinate_transformation_mode")
    mode.s = b"align_corners"
    with pytest.raises(ExportError, match="head upsampled is"):
        prove_wrapped(plain, other_centres, interface)


def many_classes() -> onnx.ModelProto:
    node = helper.make_node("Conv", ["image", "w"], ["logits"], name="conv")
    return make_model([node], {"w": np.zeros((257, 3, 1, 1), np.float32)})


def relu(opset: int = 18, input_shape: tuple[int, ...] = (1, 3, 8, 8)) -> onnx.ModelProto:
    node = helper.make_node("Relu", ["image"], ["logits"], name="relu")
    return make_model([node], {}, opset=opset, input_shape=input_shape)


def pooled() -> onnx.ModelProto:
    nodes = [helper.make_node("ReduceMax", ["image"], ["logits"], name="max", keepdims=0)]
    return make_model(nodes, {})


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (wrap(refine_model(), Interface(head=Head.UPSAMPLED)), "made for a device"),
        (wrap(refine_model(), DEVICE), "made for a device"),
        (many_classes(), "257 classes have no labels in 8 bits"),
        (pooled(), "does not give float32 logits"),
        (relu(opset=12), "of opset 12"),
        (relu(input_shape=(1, 1, 8, 8)), "fixed 1x3xHxW"),
    ],
)
def test_wrap_other_graphs_are_refused(model: onnx.ModelProto, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        wrap(model, DEVICE)


@pytest.mark.parametrize("target", PROFILES)
@pytest.mark.parametrize("interface", INTERFACES, ids=label)
def test_lint_knows_the_interface_of_a_quantized_graph(target: str, interface: Interface) -> None:
    picture = np.random.default_rng(0).standard_normal((1, 3, 16, 16), dtype=np.float32)
    model = quantized(refine_model(), [picture], target)
    set_metadata(model, {"precision": "int8", "target": target, "kept_float": '["mine"]'})
    wrapped = wrap(model, interface)
    assert lint(wrapped, target) == []
    assert "mine" in json.loads(read_metadata(wrapped)["kept_float"])


def test_export_with_an_interface_leaves_the_plain_graph_as_it_is(
    exported: Path, tmp_path: Path
) -> None:
    folder = exported / VARIANT
    written = deploy.export(VARIANT, out=tmp_path, input_size=SIZE)
    assert written.wrapped is None
    assert [p.name for p in (tmp_path / VARIANT).iterdir()] == ["fp32.onnx"]
    assert written.path.read_bytes() == (folder / "fp32.onnx").read_bytes()
    assert read_metadata(read_graph(folder / "fp32-labels-uint8.onnx"))["head"] == "labels"


def test_graphs_for_a_device_are_refused_where_the_plain_one_is_wanted(
    exported: Path, tmp_path: Path, voc_root: Path
) -> None:
    path = exported / VARIANT / "fp32-labels-uint8.onnx"
    model, out = str(path), tmp_path / "out"
    with pytest.raises(GraphError, match=r"labels-uint8\.onnx is made .*: quantize the plain"):
        deploy.quantize([model], images=2, voc_root=voc_root, out=out)
    with pytest.raises(GraphError, match="vamc takes the graph without these"):
        deploy.quantize([model], fp16=False, target="vacc", images=2, voc_root=voc_root, out=out)
    with pytest.raises(GraphError, match="validate the graph without these"):
        deploy.validate([model], voc_root=voc_root, out=out)
    with pytest.raises(GraphError, match="simplify the graph without these"):
        deploy.simplify(path)
    with pytest.raises(DeployError, match="vacc takes the plain float graph"):
        deploy.quantize([VARIANT], target="vacc", interface=DEVICE, voc_root=voc_root, out=out)
    assert not out.exists()


def test_quantize_a_missed_gate_gives_no_graph_for_a_device(voc_root: Path, tmp_path: Path) -> None:
    network = refine_model(classes=21)
    onnx.save(network, tmp_path / "net.onnx")
    gate = Gate(min_ratio=1.0, max_drop=None, max_float_layers=0, images=2)
    (written,) = deploy.quantize(
        [str(tmp_path / "net.onnx")],
        fp16=False,
        gate=gate,
        recipe=RecipeName.PLAIN,
        images=2,
        interface=DEVICE,
        voc_root=voc_root,
        out=tmp_path / "out",
    )
    assert written.missed_gate
    assert written.wrapped is None
    assert not list((tmp_path / "out" / "net").glob("*labels*"))


def test_command_line_says_where_the_graph_for_the_device_is(tmp_path: Path) -> None:
    arguments = ["export", VARIANT, "--input-size", "64", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, [*arguments, "--head", "upsampled", "--embed-preprocessing"])
    path = tmp_path / VARIANT / "fp32-upsampled-uint8.onnx"
    assert result.stdout.splitlines()[-1] == f"  for the device: {path}"
    assert path.is_file()
    assert CliRunner().invoke(app, [*arguments, "--head", "softmax"]).exit_code == 2
