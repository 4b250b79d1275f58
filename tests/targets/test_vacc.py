import hashlib
import json
from pathlib import Path

import onnx
import pytest
from graphs import refine_model

import deploy
from deploy.calibration import Method, RangeConfig
from deploy.errors import DeployError

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


def write(model: Path, voc_root: Path, method: RangeConfig | None = None) -> Path:
    (recipe,) = deploy.quantize(
        [str(model)],
        fp16=False,
        target="vacc",
        method=method,
        images=3,
        voc_root=voc_root,
        out=model.parent / "out",
    )
    return recipe.path


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
    assert (folder / "fp32.onnx").read_bytes() == model.read_bytes()
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
    folder = write(model, voc_root, RangeConfig(method=Method(method)))
    assert f"    calibrate_mode: {mode}\n" in (folder / "compile.yaml").read_text()


def test_vacc_calibration_that_it_lacks_is_refused(model: Path, voc_root: Path) -> None:
    with pytest.raises(DeployError, match="vacc has no calibration 'auto': use one of minmax"):
        write(model, voc_root, RangeConfig(method=Method.AUTO))
    assert not (model.parent / "out").exists()


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
    assert [w.path.name for w in written] == ["vacc", "fp16.onnx"]
