import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graphs import make_model, refine_model
from typer.testing import CliRunner

import deploy
from deploy.calibration import Method, RangeConfig
from deploy.calibration.record import file_sha256
from deploy.cli import app
from deploy.errors import DeployError, GraphError
from deploy.graph.graph import Graph, opset
from deploy.graph.metadata import read_metadata
from deploy.quantize.gate import Gate
from deploy.quantize.recipe import Levers, RecipeName, Rounding
from deploy.targets.vacc import prove_same

CONFIGURATION = """\
name: "mine"
frontend:
  type: onnx
  checkpoint: fp32.onnx
  shape:
    "image": [1, 3, 16, 16]
  dtype: fp32
backend:
  type: tvm_vacc
  dtype: int8
  compile:
    data_transport_mode: 1
  quantize:
    calibrate_mode: kl_divergence
    quantize_per_channel: true
dataset:
  type: tvm
  path: images
  sampler:
    suffix: jpg
    get_data_num: 3
  process_ops:
    - type: DecodeImage
    - type: Resize
      size: [16, 16]
    - type: Normalize
      mean: [0.485, 0.456, 0.406]
      std: [0.229, 0.224, 0.225]
    - type: ToTensor
workspace:
  path: workspace
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return the path of a float graph."""
    onnx.save(refine_model(), tmp_path / "mine.onnx")
    return tmp_path / "mine.onnx"


def write(model: Path, voc_root: Path, **options: Any) -> Path:
    (written,) = deploy.quantize(
        [str(model)],
        **{"fp16": False, "images": 3} | options,
        target="vacc",
        voc_root=voc_root,
        out=model.parent / "out",
    )
    return written.path


def test_vacc_folder_has_the_graph_its_recipe_and_the_images(model: Path, voc_root: Path) -> None:
    folder = write(model, voc_root)
    assert folder == model.parent / "out" / "mine" / "vacc"
    assert {p.name for p in folder.parent.iterdir()} == {"source.txt", "vacc"}
    assert {p.name for p in folder.iterdir()} == {
        "fp32.onnx",
        "compile.yaml",
        "preprocess.json",
        "images.sha256",
        "images",
    }
    assert (folder / "compile.yaml").read_text() == CONFIGURATION
    lines = [line.split("  ") for line in (folder / "images.sha256").read_text().splitlines()]
    assert [name for _, name in lines] == [f"images/train_{i}.jpg" for i in (0, 2, 4)]
    for sha256, name in lines:
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == sha256
    assert len(list((folder / "images").iterdir())) == 3


def test_vacc_preprocessing_has_halves_and_the_graphs_size(model: Path, voc_root: Path) -> None:
    content = json.loads((write(model, voc_root) / "preprocess.json").read_text())
    assert content == {
        "OpType": "FUSION_OP_RGB_RESIZE_CVTCOLOR_NORM_TENSOR",
        "OpConfig": {
            "IimageFormat": "RGB_PLANAR",
            "IimageWidth": 16,
            "IimageHeight": 16,
            "OimageWidth": 16,
            "OimageHeight": 16,
            "IimageWidthPitch": 16,
            "IimageHeightPitch": 16,
            "Mean": [0.485107421875, 0.4560546875, 0.406005859375],
            "Std": [0.22900390625, 0.2239990234375, 0.2249755859375],
            "NormaType": "DIV255_MINUSMEAN_DIVSTD",
            "ColorCvtCode": "NO_CHANGE",
            "ResizeType": "BILINEAR_CV",
        },
    }


@pytest.mark.parametrize(
    ("method", "mode"),
    [("minmax", "max"), ("percentile", "percentile"), ("entropy", "kl_divergence"), ("mse", "mse")],
)
def test_vacc_calibration_is_the_method_that_is_asked_for(
    model: Path, voc_root: Path, method: str, mode: str
) -> None:
    folder = write(model, voc_root, method=RangeConfig(method=Method(method)))
    assert f"    calibrate_mode: {mode}\n" in (folder / "compile.yaml").read_text()


def test_vacc_calibration_that_it_lacks_is_refused(model: Path, voc_root: Path) -> None:
    with pytest.raises(DeployError, match="vacc has no calibration 'auto': use one of minmax"):
        write(model, voc_root, method=RangeConfig(method=Method.AUTO))
    assert not (model.parent / "out").exists()


def test_vacc_graph_is_of_opset_11_with_the_same_numbers(model: Path, voc_root: Path) -> None:
    plain, old = onnx.load(model), onnx.load(write(model, voc_root) / "fp32.onnx")
    assert (opset(old), old.ir_version) == (11, 6)
    onnx.checker.check_model(old, full_check=True)
    prove_same(plain, old)
    metadata = {entry.key: entry.value for entry in old.metadata_props}
    assert metadata == {"float_file_sha256": file_sha256(model)}


@pytest.mark.parametrize("version", [9, 11, 13, 18, 21])
def test_vacc_takes_graphs_of_any_opset(model: Path, voc_root: Path, version: int) -> None:
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    nodes = [
        onnx.helper.make_node("Conv", ["image", "w"], ["c"], name="conv"),
        onnx.helper.make_node("Relu", ["c"], ["logits"], name="relu"),
    ]
    onnx.save(make_model(nodes, {"w": weight}, opset=version), model)
    old = onnx.load(write(model, voc_root) / "fp32.onnx")
    assert (opset(old), old.ir_version) == (min(version, 11), 6)


def test_vacc_graph_that_is_not_valid_is_refused() -> None:
    spoiled = refine_model()
    spoiled.graph.node[0].op_type = "Convolution"
    with pytest.raises(GraphError, match="it is no valid graph of opset 11: No Op registered"):
        prove_same(refine_model(), spoiled)


def test_vacc_graph_of_other_numbers_is_refused() -> None:
    with pytest.raises(GraphError, match="in opset 11 the logits differ by"):
        prove_same(refine_model(), refine_model(seed=1))


def test_vacc_graph_that_opset_11_lacks_is_refused_whole(model: Path, voc_root: Path) -> None:
    node = onnx.helper.make_node("Mish", ["image"], ["logits"], name="mish")
    onnx.save(make_model([node], {}), model)
    with pytest.raises(GraphError, match=r"mine\.onnx: opset 11 has no operator of node mish"):
        write(model, voc_root)
    assert not (model.parent / "out").exists()


def test_vacc_for_fp16_has_no_images_and_nothing_to_quantize(model: Path, voc_root: Path) -> None:
    written = deploy.quantize(
        [str(model)],
        int8=False,
        target="vacc",
        voc_root=voc_root,
        out=model.parent / "out",
        images=2,
    )
    assert [w.path.name for w in written] == ["vacc-fp16", "fp16.onnx"]
    folder = written[0].path
    assert {p.name for p in folder.iterdir()} == {"fp32.onnx", "compile.yaml", "preprocess.json"}
    head, rest = CONFIGURATION.split("  quantize:\n")
    expected = head.replace("dtype: int8", "dtype: fp16") + rest[rest.index("workspace:") :]
    assert (folder / "compile.yaml").read_text() == expected


def test_vacc_options_go_below_quantize(model: Path, voc_root: Path) -> None:
    options = {"skip_conv_layers": [0, 3], "weight_scale": "max", "overflow_adaptive": True}
    text = (write(model, voc_root, vamc=options) / "compile.yaml").read_text()
    added = '    skip_conv_layers: [0, 3]\n    weight_scale: "max"\n    overflow_adaptive: true\n'
    assert text == CONFIGURATION.replace("dataset:\n", f"{added}dataset:\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"skip": 1}, "vamc has no option 'skip': use one of calibrate_chunk_by, calibrate_range"),
        ({"calibrate_chunk_by": 0}, "calibrate_chunk_by is 0: it must be how many tensors"),
        ({"calibrate_range": 99.9}, "calibrate_range is 99.9: it must be the share"),
        ({"overflow_adaptive": "yes"}, "overflow_adaptive is 'yes': it must be 0, 1"),
        ({"skip_conv_layers": [1, -1]}, r"skip_conv_layers is \[1, -1\]: it must be a list"),
        ({"weight_scale": "min"}, "weight_scale is 'min': it must be max or power2"),
    ],
)
def test_vacc_options_that_are_wrong_are_refused(
    model: Path, voc_root: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(DeployError, match=message):
        write(model, voc_root, vamc=options)
    assert not (model.parent / "out").exists()


@pytest.mark.parametrize("asked", [{"carrier": True}, {"vamc": {"weight_scale": "max"}}])
def test_vacc_options_elsewhere_are_refused(
    model: Path, voc_root: Path, asked: dict[str, Any]
) -> None:
    with pytest.raises(DeployError, match="is not for target ort: deploy quantizes its graph"):
        deploy.quantize([str(model)], voc_root=voc_root, **asked)
    with pytest.raises(DeployError, match="is for INT8, which is not asked for: add --int8"):
        write(model, voc_root, fp16=True, int8=False, **asked)


def test_vacc_options_on_the_command_line(model: Path, voc_root: Path, tmp_path: Path) -> None:
    command = ["quantize", str(model), "--int8", "--target", "vacc", "--images", "3"]
    places = ["--voc-root", str(voc_root), "--out", str(tmp_path / "out")]
    options = ["--vamc", "skip_conv_layers=[1]", "--vamc", "weight_scale=power2"]
    result = CliRunner().invoke(app, [*command, *places, *options, "--carrier"])
    assert result.exit_code == 0, result.output
    assert "carrier by recipe fast, 3 images, calibrate_mode kl_divergence)" in result.stdout
    text = (tmp_path / "out" / "mine" / "vacc" / "compile.yaml").read_text()
    assert '    skip_conv_layers: [1]\n    weight_scale: "power2"\ndataset:' in text
    for wrong, message in (("weight_scale", "is no KEY=VALUE"), ("skip_conv_layers=0", "twice")):
        result = CliRunner().invoke(app, [*command, *places, *options, "--vamc", wrong])
        assert result.exit_code == 2
        assert message in result.output


def test_vacc_carrier_has_rounded_weights_and_their_ranges(model: Path, voc_root: Path) -> None:
    folder = write(model, voc_root, carrier=True, levers=Levers(rounding=Rounding.NEAREST))
    plain, carrier = Graph(onnx.load(model)), Graph(onnx.load(folder / "fp32.onnx"))
    assert opset(carrier.model) == 11
    metadata = read_metadata(carrier.model)
    assert metadata["carrier"] == "fast (rounding nearest)"
    assert metadata["float_file_sha256"] == file_sha256(model)
    assert len(json.loads(metadata["calibration_images"])) == 3
    nodes = zip(plain.model.graph.node, carrier.model.graph.node, strict=True)
    pairs = [(a.input[1], b.input[1]) for a, b in nodes if a.op_type == "Conv"]
    assert len(pairs) == 4
    for before, after in ((plain.constants[a], carrier.constants[b]) for a, b in pairs):
        step = np.abs(before).max(axis=(1, 2, 3), keepdims=True) / 127
        np.testing.assert_allclose(after / step, np.round(before / step), atol=1e-3)
    ranges = json.loads((folder / "ranges.json").read_text())
    assert {"image", "logits"} <= set(ranges) <= {"image", *carrier.producers}
    assert all(low <= 0 <= high for low, high in ranges.values())


def test_vacc_carrier_is_made_by_the_recipe_asked_for(model: Path, voc_root: Path) -> None:
    graphs = set()
    for recipe in (RecipeName.PLAIN, RecipeName.FAST):
        graph = onnx.load(write(model, voc_root, carrier=True, recipe=recipe) / "fp32.onnx")
        assert read_metadata(graph)["carrier"] == recipe
        graphs.add(graph.graph.SerializeToString())
    assert len(graphs) == 2


def test_vacc_carrier_of_several_recipes_is_refused(model: Path, voc_root: Path) -> None:
    with pytest.raises(DeployError, match="a carrier is of one recipe: choose another than auto"):
        write(model, voc_root, carrier=True, recipe=RecipeName.AUTO, gate=Gate(min_ratio=0.9))


def test_vacc_folder_is_replaced_as_a_whole(model: Path, voc_root: Path) -> None:
    folder = write(model, voc_root)
    (folder / "images" / "old.jpg").write_bytes(b"")
    write(model, voc_root)
    assert not (folder / "images" / "old.jpg").exists()
    assert {p.name for p in folder.parent.iterdir()} == {"source.txt", "vacc"}


def test_vacc_beside_fp16_writes_both(model: Path, voc_root: Path) -> None:
    written = deploy.quantize(
        [str(model)], target="vacc", images=2, voc_root=voc_root, out=model.parent / "out"
    )
    assert [w.path.name for w in written] == ["vacc", "vacc-fp16", "fp16.onnx"]
