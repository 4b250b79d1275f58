import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import run_main
from graphs import make_model, quantized, refine_model
from numpy.typing import NDArray
from onnx import helper
from PIL import Image
from safetensors.torch import save_file

import deploy
from deploy import models
from deploy.calibration import PALETTE, DataError, Fit
from deploy.calibration.preprocess import MEAN, STD
from deploy.calibration.voc import CLASSES, read_mask
from deploy.errors import DeployError, GraphError
from deploy.export.heads import wrap
from deploy.export.interface import Head, Interface
from deploy.graph.graph import Graph
from deploy.graph.metadata import set_metadata
from deploy.predict.labelling import label_image
from deploy.predict.predict import open_network, predict
from deploy.quantize.fp16 import convert_fp16

COLORS = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=np.uint8)
NAMES = "background,red,green,blue"
SIDE = 32


def color_model(side: int | str = SIDE) -> onnx.ModelProto:
    """Return a network that sees red, green and blue; its logits are half the input's size."""
    weight = np.zeros((4, 3, 1, 1), dtype=np.float32)
    weight[[1, 2, 3], [0, 1, 2], 0, 0] = STD
    node = helper.make_node
    nodes = [
        node("Conv", ["image", "w", "b"], ["c"], name="conv"),
        node("AveragePool", ["c"], ["logits"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
    ]
    constants = {"w": weight, "b": np.array([0.5, *MEAN], dtype=np.float32)}
    return make_model(nodes, constants, input_shape=(1, 3, side, side))


@pytest.fixture
def colors(tmp_path: Path) -> Path:
    """Return the path of the network that sees colours."""
    model = color_model()
    set_metadata(model, {"classes": NAMES, "fit": "squash"})
    onnx.save(model, tmp_path / "colors.onnx")
    return tmp_path / "colors.onnx"


def draw(height: int, width: int) -> NDArray[np.uint8]:
    """Return labels with a colour in three corners, a third of the sides long."""
    labels = np.zeros((height, width), dtype=np.uint8)
    third_h, third_w = height // 3, width // 3
    labels[:third_h, :third_w] = 1
    labels[:third_h, -third_w:] = 2
    labels[-third_h:, -third_w:] = 3
    return labels


def save(path: Path, labels: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(COLORS[labels]).save(path)
    return path


@pytest.mark.parametrize("fit", Fit)
@pytest.mark.parametrize(
    "size", [(96, 96), (96, 130), (130, 96), (63, 250), (400, 110), (32, 32), (20, 31), (700, 900)]
)
def test_labels_lie_where_the_image_has_its_colors_whatever_the_fit(
    colors: Path, fit: Fit, size: tuple[int, int]
) -> None:
    truth = draw(*size)
    network = open_network(str(colors))
    labels = label_image(network.runner, COLORS[truth], fit, network.size, network.logits_size)
    assert labels.shape == size
    # a border may move by half a cell of the logits: as many pixels as 32 / 16 * 0.5 inputs have
    longest = max(size) if fit is not Fit.CROP else min(size)
    slack = int(np.ceil(longest / SIDE)) + 1
    wrong = np.argwhere(labels != truth)
    borders = np.array(
        [[size[0] // 3, size[0] - size[0] // 3], [size[1] // 3, size[1] - size[1] // 3]]
    )
    distance = np.abs(wrong[:, :, None] - borders[None]).min(axis=2).min(axis=1)
    assert (distance <= slack).all()
    assert len(np.unique(labels)) == 4


def test_windows_leave_no_seam(colors: Path) -> None:
    network = open_network(str(colors))
    image = np.tile(np.linspace(0, 255, 400).astype(np.uint8)[None, :, None], (50, 1, 3))
    image[:, :, 1:] = 0  # red grows from left to right
    labels = label_image(network.runner, image, Fit.CROP, network.size, network.logits_size)
    edges = np.flatnonzero(np.diff(labels[25].astype(int)))
    assert edges.tolist() == pytest.approx([199], abs=2)


def test_predict_writes_mask_and_overlay_at_the_images_own_size(
    colors: Path, tmp_path: Path
) -> None:
    truth = draw(90, 120)
    image = save(tmp_path / "in" / "one.v2.png", truth)
    result = predict(str(colors), [str(image)], out=tmp_path / "out")
    (found,) = result.images
    assert found.mask == tmp_path / "out" / "one.v2-mask.png"
    assert found.size == (90, 120)
    with Image.open(found.mask) as mask:
        assert (mask.mode, mask.size) == ("P", (120, 90))
        assert mask.getpalette() == PALETTE.ravel().tolist()
    labels = read_mask(found.mask, 4)
    assert (labels == truth).mean() > 0.95
    assert next(iter(found.shares)) == "background"
    assert found.shares["red"] == pytest.approx((labels == 1).mean())
    assert sum(found.shares.values()) == pytest.approx(1)
    with Image.open(found.overlay) as overlay:
        assert overlay.width >= 120
        assert overlay.height > 90
        pixels = np.asarray(overlay)[:90, :120]
    # half the image, half VOC's colour of label 1, on which red lies
    np.testing.assert_allclose(pixels[5, 5], (COLORS[1] + 1.0 * PALETTE[1]) / 2, atol=1)


def test_exif_orientation_is_respected(colors: Path, tmp_path: Path) -> None:
    truth = draw(60, 90)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side: to be turned by 270 degrees
    stored = Image.fromarray(COLORS[np.rot90(truth)])
    stored.save(tmp_path / "turned.jpg", exif=exif, quality=98, subsampling=0)
    result = predict(str(colors), [str(tmp_path / "turned.jpg")], out=tmp_path / "out")
    labels = read_mask(result.images[0].mask, 4)
    assert labels.shape == (60, 90)
    assert (labels == truth).mean() > 0.95


def test_images_of_one_name_do_not_overwrite_each_other(colors: Path, tmp_path: Path) -> None:
    paths = [tmp_path / "in" / name for name in ("a/x.png", "b/x.png", "b/c/x.png", "b/x.bmp")]
    for path in paths:
        save(path, draw(40, 40))
    arguments = [*map(str, paths[:2]), str(tmp_path / "in" / "**" / "x.*"), str(paths[0])]
    result = predict(str(colors), arguments, out=tmp_path / "out")
    masks = [found.mask.relative_to(tmp_path / "out").as_posix() for found in result.images]
    assert sorted(masks) == [
        "a/x.png-mask.png",
        "b/c/x.png-mask.png",
        "b/x.bmp-mask.png",
        "b/x.png-mask.png",
    ]
    assert [found.image for found in result.images[:2]] == paths[:2]
    assert len(list((tmp_path / "out").rglob("*.png"))) == 8
    flat = predict(str(colors), [str(tmp_path / "in" / "a")], out=tmp_path / "flat")
    assert flat.images[0].mask == tmp_path / "flat" / "x-mask.png"


def test_a_bad_image_stops_it_before_anything_is_written(
    colors: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    good = save(tmp_path / "in" / "good.png", draw(40, 40))
    cut = tmp_path / "in" / "cut.png"
    cut.write_bytes(good.read_bytes()[:60])
    out = tmp_path / "out"
    arguments = ["predict", str(colors), str(good), str(cut), "--out", str(out)]
    code, printed, err = run_main(arguments, monkeypatch, capsys)
    assert (code, printed) == (1, "")
    assert err.count("\n") == 1
    assert f"{cut} cannot be decoded as an image" in err
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["COLORS", "none.png"], "no image at none.png"),
        (["COLORS", "*.png"], r"no image matches '*.png'"),
        (["COLORS", "empty"], "no images in empty"),
        (["COLORS", "in", "--out", "in"], "in holds the images"),
        (["COLORS", "in", "--input-size", "64"], "takes images of 32x32"),
        (["COLORS", "in", "--variant", "rf-lw50"], "leave out --variant"),
        (["colors", "in"], "'colors' is neither a variant (rf50"),
        (["none.onnx", "in"], "no ONNX file at none.onnx"),
        (["checkpoint.pth", "in"], "checkpoint.pth is a checkpoint: say of which network"),
        (["rf-lw50", "in", "--variant", "rf101"], "is a variant itself"),
        (["rf-lw50", "in", "--weights", "none.pth"], "no checkpoint at none.pth"),
    ],
)
def test_bad_input_is_one_line_and_exit_1(
    arguments: list[str],
    message: str,
    colors: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "in" / "good.png", draw(40, 40))
    (tmp_path / "empty").mkdir()
    (tmp_path / "checkpoint.pth").write_bytes(b"")
    before = sorted(tmp_path.rglob("*"))
    names = [str(colors) if a == "COLORS" else a for a in arguments]
    code, out, err = run_main(["predict", *names], monkeypatch, capsys)
    assert (code, out) == (1, "")
    assert message in err.splitlines()[-1]
    assert sum("Error: " in line for line in err.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_output_is_a_line_for_each_image_with_what_was_written(
    colors: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    save(tmp_path / "in" / "plain.png", np.zeros((50, 70), dtype=np.uint8))
    code, out, _ = run_main(["predict", "colors.onnx", "in"], monkeypatch, capsys)
    assert code == 0
    assert out == (
        "colors.onnx, input 32x32, fit squash\n\n"
        "in/plain.png  70x50  background 100.0%\n"
        "  predictions/plain-mask.png  predictions/plain-overlay.png\n"
    )
    code, out, _ = run_main(["predict", "colors.onnx", "in", "--json"], monkeypatch, capsys)
    assert json.loads(out) == {
        "model": "colors.onnx",
        "weights": None,
        "fit": "squash",
        "input_size": [32, 32],
        "images": [
            {
                "image": "in/plain.png",
                "mask": "predictions/plain-mask.png",
                "overlay": "predictions/plain-overlay.png",
                "size": [50, 70],
                "shares": {"background": 1.0},
            }
        ],
    }


def test_class_names_are_the_graphs_or_vocs_or_numbers(colors: Path, tmp_path: Path) -> None:
    assert open_network(str(colors)).classes == tuple(NAMES.split(","))
    plain, path = color_model(), tmp_path / "plain.onnx"
    onnx.save(plain, path)
    assert open_network(str(path)).classes == ("class0", "class1", "class2", "class3")
    onnx.save(refine_model(classes=21), path)
    assert open_network(str(path)).classes == CLASSES
    set_metadata(plain, {"classes": "one,two"})
    onnx.save(plain, path)
    assert open_network(str(path)).classes == ("class0", "class1", "class2", "class3")


def test_a_graph_that_leaves_its_size_open_takes_the_one_given(tmp_path: Path) -> None:
    onnx.save(color_model("side"), tmp_path / "open.onnx")
    assert open_network(str(tmp_path / "open.onnx")).size == (500, 500)
    network = open_network(str(tmp_path / "open.onnx"), input_size=(40, 60))
    assert (network.size, network.logits_size) == ((40, 60), (20, 30))


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (1, 1, 32, 32), (1, 32, 32, 3), ("n", 4, 8, 8)])
def test_a_graph_that_takes_no_single_image_is_refused(
    shape: tuple[int | str, ...], tmp_path: Path
) -> None:
    nodes = [helper.make_node("Relu", ["image"], ["logits"])]
    onnx.save(make_model(nodes, {}, input_shape=shape), tmp_path / "odd.onnx")
    with pytest.raises(GraphError, match=r"odd\.onnx.*a fixed 1x3xHxW is expected"):
        open_network(str(tmp_path / "odd.onnx"))


def test_a_graph_of_one_class_or_without_finite_logits_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "odd.onnx"
    onnx.save(refine_model(classes=1), path)
    with pytest.raises(GraphError, match=r"odd\.onnx: the network gives 1 classes"):
        open_network(str(path))
    nodes = [helper.make_node("Log", ["image"], ["logits"], name="log")]
    onnx.save(make_model(nodes, {}), path)  # of 0 it is minus infinity
    with pytest.raises(GraphError, match="not finite"):
        open_network(str(path))


def test_a_graph_for_a_device_is_refused_by_name(colors: Path, tmp_path: Path) -> None:
    wrapped = wrap(onnx.load(colors), Interface(head=Head.LABELS))
    onnx.save(wrapped, tmp_path / "colors-labels.onnx")
    with pytest.raises(GraphError, match=r"colors-labels\.onnx is made for a device"):
        open_network(str(tmp_path / "colors-labels.onnx"))
    with pytest.raises(GraphError, match="measure the graph without these"):
        deploy.latency([str(tmp_path / "colors-labels.onnx")], runs=1)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_graphs_of_every_precision_label_alike(precision: str, tmp_path: Path) -> None:
    model = refine_model()
    image = np.random.default_rng(0).standard_normal((1, 3, 16, 16), dtype=np.float32)
    other = convert_fp16(Graph(model), {}).model
    if precision == "int8":
        other = quantized(model, [image])
    masks = []
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (50, 60, 3), np.uint8)).save(
        tmp_path / "noise.png"
    )
    for name, graph in (("fp32", model), (precision, other)):
        onnx.save(graph, tmp_path / f"{name}.onnx")
        arguments = [str(tmp_path / "noise.png")]
        result = predict(str(tmp_path / f"{name}.onnx"), arguments, out=tmp_path / name)
        masks.append(read_mask(result.images[0].mask, 4))
    assert len(np.unique(masks[0])) > 1
    assert (masks[0] == masks[1]).mean() > 0.9


def test_a_variant_and_its_checkpoint_label_alike(tmp_path: Path) -> None:
    variant = models.DEFAULT_VARIANT
    module, _ = models.build_with_weights(variant)
    torch.save(module.state_dict(), tmp_path / "mine.pth")
    image = save(tmp_path / "in" / "a.png", draw(64, 80))
    results = []
    for number, (model, chosen) in enumerate(
        [(variant, None), (str(tmp_path / "mine.pth"), variant)]
    ):
        out = tmp_path / str(number)
        found = predict(model, [str(image)], variant=chosen, input_size=(64, 64), out=out)
        results.append(found)
    assert [result.weights for result in results] == [
        "repository rf-lw-mbv2.safetensors",
        "file mine.pth",
    ]
    first, second = (read_mask(result.images[0].mask) for result in results)
    np.testing.assert_array_equal(first, second)


def test_a_checkpoint_of_other_classes_brings_their_names(tmp_path: Path) -> None:
    module = models.build(models.DEFAULT_VARIANT, 3)
    save_file(module.state_dict(), tmp_path / "mine.safetensors", {"classes": "road,sky,car"})
    path = str(tmp_path / "mine.safetensors")
    network = open_network(path, models.DEFAULT_VARIANT, input_size=(64, 64))
    assert network.classes == ("road", "sky", "car")


def test_a_folder_gives_its_images_alone(colors: Path, tmp_path: Path) -> None:
    save(tmp_path / "in" / "b.png", draw(40, 40))
    save(tmp_path / "in" / "a.PNG", draw(40, 40))
    save(tmp_path / "in" / "below" / "c.png", draw(40, 40))
    shutil.copy(colors, tmp_path / "in" / "notes.txt")
    (tmp_path / "in" / "._b.png").write_bytes(b"a Mac's own")
    result = predict(str(colors), [str(tmp_path / "in")], out=tmp_path / "out")
    assert [found.image.name for found in result.images] == ["a.PNG", "b.png"]


def test_an_image_named_by_a_link_keeps_its_name(colors: Path, tmp_path: Path) -> None:
    save(tmp_path / "store" / "0a1b.png", draw(40, 40))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "cat.png").symlink_to(tmp_path / "store" / "0a1b.png")
    result = predict(str(colors), [str(tmp_path / "in" / "cat.png")], out=tmp_path / "out")
    assert result.images[0].mask.name == "cat-mask.png"


def test_results_among_the_images_are_refused(colors: Path, tmp_path: Path) -> None:
    save(tmp_path / "in" / "b.png", draw(40, 40))
    with pytest.raises(DeployError, match="choose another folder"):
        predict(str(colors), [str(tmp_path / "in")], out=tmp_path / "in")


@pytest.mark.voc
def test_prediction_of_a_real_image_is_close_to_its_mask(
    real_voc_root: Path, tmp_path: Path
) -> None:
    image = real_voc_root / "JPEGImages" / "2007_000676.jpg"
    truth_path = real_voc_root / "SegmentationClass" / "2007_000676.png"
    if not image.is_file():
        raise DataError(f"{image} is not there")
    result = predict(models.DEFAULT_VARIANT, [str(image)], out=tmp_path)
    truth, labels = read_mask(truth_path), read_mask(result.images[0].mask)
    counted = truth != 255
    assert (truth == labels)[counted].mean() > 0.95
    assert list(result.images[0].shares)[:2] == ["background", "sheep"]
