"""The whole chain on one variant at a small input: what the command line does, file by file."""

import json
import shutil
import sys
from pathlib import Path

import onnx
import pytest
from results import validation

import deploy
from deploy import models
from deploy.calibration import CalibrationError, DataError, read_calibration
from deploy.calibration.ranges import Method, RangeConfig
from deploy.errors import DeployError, ReportError
from deploy.graph.graph import count_ops
from deploy.graph.metadata import read_metadata, set_metadata
from deploy.pipeline import whole
from deploy.progress import SilentProgress
from deploy.runtimes.runner import Runtime
from deploy.targets import PROFILES
from deploy.validate.protocol import Protocol

VARIANT = models.DEFAULT_VARIANT
SIZE = (64, 64)
FIGURES = {
    "miou",
    "miou_drop",
    "miou_ratio",
    "per_class_iou",
    "pixel_accuracy",
    "agreement",
    "sqnr_db",
    "cosine",
    "latency_ms",
    "size_bytes",
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of artifacts in which the default variant is exported."""
    out = tmp_path_factory.mktemp("artifacts")
    deploy.export(VARIANT, out=out, input_size=SIZE)
    return out


@pytest.fixture
def out(exported: Path, tmp_path: Path) -> Path:
    """Return a copy of the exported artifacts that a test may change."""
    return Path(shutil.copytree(exported, tmp_path / "artifacts"))


@pytest.fixture
def quantized(out: Path, voc_root: Path) -> Path:
    """Return artifacts with the FP16 and INT8 graphs."""
    deploy.quantize([VARIANT], images=6, voc_root=voc_root, out=out)
    return out


def test_export_writes_metadata(exported: Path) -> None:
    metadata = read_metadata(onnx.load(exported / VARIANT / "fp32.onnx"))
    module, _ = models.build_with_weights(VARIANT)
    assert metadata["variant"] == VARIANT
    assert metadata["weights_sha256"] == models.state_dict_hash(module)
    assert metadata["classes"].split(",")[15] == "person"
    assert json.loads(metadata["mean"]) == [0.485, 0.456, 0.406]
    assert metadata["fit"] == "crop"


def test_export_twice_gives_the_same_bytes(exported: Path, tmp_path: Path) -> None:
    deploy.export(VARIANT, out=tmp_path, input_size=SIZE)
    graph = f"{VARIANT}/fp32.onnx"
    assert (tmp_path / graph).read_bytes() == (exported / graph).read_bytes()


def test_export_too_small_an_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="16x64 is below 32x32"):
        deploy.export(VARIANT, out=tmp_path, input_size=(16, 64))


def test_quantize_writes_both_graphs_and_the_calibration(quantized: Path) -> None:
    folder = quantized / VARIANT
    assert {p.name for p in folder.iterdir()} == {
        "fp32.onnx",
        "fp16.onnx",
        "int8.onnx",
        "calibration.json",
        "levers-127-channel-int32.safetensors",
    }
    calibration = read_calibration(folder / "calibration.json")
    assert [image.name for image in calibration.key.images] == [f"train_{i}" for i in range(6)]
    int8 = onnx.load(folder / "int8.onnx")
    assert read_metadata(int8)["precision"] == "int8"
    assert read_metadata(int8)["calibration_method"] == "minmax"
    fp32, int8_ops = count_ops(onnx.load(folder / "fp32.onnx")), count_ops(int8)
    assert all(int8_ops[op] == fp32[op] for op in ("Conv", "Add"))
    assert int8_ops["MaxPool"] == 2 * fp32["MaxPool"]  # rows and columns apart


def test_quantize_again_reuses_the_calibration_whatever_the_method(
    quantized: Path, voc_root: Path
) -> None:
    folder = quantized / VARIANT
    before = (folder / "int8.onnx").read_bytes(), (folder / "calibration.json").stat().st_mtime_ns
    (again,) = deploy.quantize(fp16=False, images=6, voc_root=voc_root, out=quantized)
    assert again.calibration_reused
    assert (folder / "int8.onnx").read_bytes() == before[0]
    config = RangeConfig(method=Method.PERCENTILE, percentile=99)
    (other,) = deploy.quantize(
        [VARIANT], fp16=False, method=config, images=6, voc_root=voc_root, out=quantized
    )
    assert other.calibration_reused
    assert (folder / "int8.onnx").read_bytes() != before[0]
    assert (folder / "calibration.json").stat().st_mtime_ns == before[1]


def test_quantize_auto_says_what_it_chose_for_each_tensor(quantized: Path, voc_root: Path) -> None:
    config = RangeConfig(method=Method.AUTO)
    (result,) = deploy.quantize(
        fp16=False, method=config, images=6, voc_root=voc_root, out=quantized
    )
    tensors = read_calibration(quantized / VARIANT / "calibration.json").tensors
    assert result.calibration_reused
    assert result.methods.keys() == tensors.keys()
    assert set(result.methods.values()) <= {"minmax", "percentile", "entropy", "mse"}
    metadata = read_metadata(onnx.load(result.path))
    assert metadata["calibration_method"] == "auto"
    assert json.loads(metadata["calibration_methods"]) == result.methods


def test_quantize_other_images_calibrate_anew(quantized: Path, voc_root: Path) -> None:
    (result,) = deploy.quantize(fp16=False, images=3, voc_root=voc_root, out=quantized)
    assert not result.calibration_reused


def test_quantize_from_an_onnx_file_writes_beside_its_name(
    exported: Path, tmp_path: Path, voc_root: Path
) -> None:
    model = tmp_path / "mine.onnx"
    shutil.copy(exported / VARIANT / "fp32.onnx", model)
    written = deploy.quantize([str(model)], images=2, voc_root=voc_root, out=tmp_path / "out")
    assert [w.path.relative_to(tmp_path).as_posix() for w in written] == [
        "out/mine/fp16.onnx",
        "out/mine/int8.onnx",
    ]


@pytest.mark.slow
def test_quantize_every_target_stands_beside_and_lints_clean(out: Path, voc_root: Path) -> None:
    before = None
    for name in PROFILES:
        (written,) = deploy.quantize(
            [VARIANT], fp16=False, target=name, images=3, voc_root=voc_root, out=out
        )
        assert written.path.name == ("int8.onnx" if name == "ort" else f"int8-{name}.onnx")
        assert written.precision == "int8"
        assert written.calibration_reused is (before is not None)
        before = written
        assert read_metadata(onnx.load(written.path))["target"] == name
        linted = deploy.lint(written.path)
        assert (linted.target, linted.findings) == (name, [])


def test_quantize_images_that_are_evaluated_are_refused(out: Path, voc_root: Path) -> None:
    with pytest.raises(CalibrationError, match="also in 'val'"):
        deploy.quantize([VARIANT], split="val", images=2, voc_root=voc_root, out=out)
    assert {p.name for p in (out / VARIANT).iterdir()} == {"fp32.onnx"}


def test_quantize_more_images_than_there_are_is_refused(out: Path, voc_root: Path) -> None:
    with pytest.raises(CalibrationError, match=r"7 calibration images asked for.* has 6"):
        deploy.quantize([VARIANT], images=7, voc_root=voc_root, out=out)


def test_validate_measures_torch_and_every_graph(quantized: Path, voc_root: Path) -> None:
    (result,) = deploy.validate(voc_root=voc_root, out=quantized)
    assert list(result["results"]) == ["torch", "fp32", "fp16", "int8"]
    assert all(figures.keys() >= FIGURES for figures in result["results"].values())
    counts = {name: figures["int8_convolutions"] for name, figures in result["results"].items()}
    assert counts == {"torch": None, "fp32": [0, 78], "fp16": [0, 78], "int8": [78, 78]}
    assert result["runtime"] == "onnxruntime"
    torch, fp32, fp16, int8 = result["results"].values()
    assert torch["agreement"] == 1
    assert torch["cosine"] == 1
    assert torch["miou_drop"] is None
    assert fp32["miou_drop"]["low"] <= fp32["miou_drop"]["value"] <= fp32["miou_drop"]["high"]
    assert int8["miou_drop"]["value"] == pytest.approx(torch["miou"] - int8["miou"])
    assert int8["miou_ratio"]["value"] == pytest.approx(int8["miou"] / torch["miou"])
    assert fp32["sqnr_db"] > 90
    assert 40 < fp16["sqnr_db"] < 80
    assert 10 < int8["sqnr_db"] < 40
    # noise at right angles to the signal: cos² = 1 / (1 + noise / signal)
    assert int8["cosine"] == pytest.approx((1 + 10 ** (-int8["sqnr_db"] / 10)) ** -0.5, abs=0.01)
    assert 1 >= fp32["cosine"] >= fp16["cosine"] >= int8["cosine"]
    assert fp32["agreement"] >= fp16["agreement"] >= int8["agreement"] > 0.8
    assert int8["size_bytes"] < fp16["size_bytes"] < fp32["size_bytes"]
    assert result["weights"]["source"] == "repository"
    assert result["dataset"]["images"] == 4


def test_validate_leaves_what_others_made_for_another_runtime_to_that(
    quantized: Path, voc_root: Path
) -> None:
    folder = quantized / VARIANT
    (folder / "fp16.onnx").unlink()
    shutil.copy(folder / "int8.onnx", folder / "int8-vendor.onnx")
    (folder / "int8-openvino-vendor.onnx").write_bytes(b"for OpenVINO alone")
    (result,) = deploy.validate([VARIANT], limit=1, voc_root=voc_root, out=quantized)
    assert result["results"].keys() == {"torch", "fp32", "int8", "int8-vendor"}


def test_validate_with_an_image_that_calibrated_is_refused_whatever_its_name(
    quantized: Path, voc_root: Path
) -> None:
    lists = voc_root / "ImageSets" / "Segmentation"
    for folder, suffix in (("JPEGImages", "jpg"), ("SegmentationClass", "png")):
        source = voc_root / folder / f"train_0.{suffix}"
        shutil.copy(source, voc_root / folder / f"renamed.{suffix}")
    (lists / "other.txt").write_text("val_0\nrenamed\n")
    with pytest.raises(DataError, match=r"calibrated with 1 of the images to evaluate \(renamed\)"):
        deploy.validate(split="other", voc_root=voc_root, out=quantized)


def test_validate_graph_of_other_parameters_is_refused(
    quantized: Path, voc_root: Path, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    from deploy.models.checkpoint import fill_random

    module = models.build(VARIANT)
    fill_random(module, seed=1)
    save_file(module.state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(DeployError, match="exported from other parameters"):
        deploy.validate(
            [VARIANT], weights=tmp_path / "other.safetensors", voc_root=voc_root, out=quantized
        )


def test_validate_onnx_file_finds_its_baseline_in_the_metadata(
    quantized: Path, voc_root: Path, tmp_path: Path
) -> None:
    path = shutil.copy(quantized / VARIANT / "int8.onnx", tmp_path / "elsewhere.onnx")
    (result,) = deploy.validate(
        [str(path)], protocol=Protocol.NATIVE, limit=2, voc_root=voc_root, out=quantized
    )
    assert list(result["results"]) == ["torch", "elsewhere"]
    assert result["results"]["elsewhere"]["agreement"] > 0.8


@pytest.mark.parametrize("random", ["torch", "elsewhere"])
def test_validate_leaves_out_what_random_parameters_score(
    random: str, out: Path, voc_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = onnx.load(out / VARIANT / "fp32.onnx")
    if random == "elsewhere":
        set_metadata(model, read_metadata(model) | {"weights": "random"})
    else:
        monkeypatch.setattr("deploy.models.sources.SHIPPED", tmp_path)
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    onnx.save(model, tmp_path / "elsewhere.onnx")
    (result,) = deploy.validate(
        [str(tmp_path / "elsewhere.onnx")], limit=2, voc_root=voc_root, out=out
    )
    figures = result["results"].pop(random)
    accuracy = ("miou", "per_class_iou", "pixel_accuracy", "miou_drop", "miou_ratio")
    assert [figures[name] for name in accuracy] == [None] * 5
    assert figures["agreement"] is not None
    assert figures["cosine"] is not None
    (other,) = result["results"].values()
    assert other["miou"] is not None
    assert other["miou_drop"] is None  # there is no accuracy to compare with


def test_validate_without_anything_exported_says_what_to_do(tmp_path: Path, voc_root: Path) -> None:
    with pytest.raises(DeployError, match="run 'deploy export'"):
        deploy.validate(out=tmp_path / "none", voc_root=voc_root)


def test_report_holds_what_validation_measured(quantized: Path, voc_root: Path) -> None:
    (result,) = deploy.validate(voc_root=voc_root, out=quantized)
    deploy.report(out=quantized)
    content = json.loads((quantized / "report" / "report.json").read_text())
    variant = content["variants"][VARIANT]
    assert variant["results"] == result["results"]
    assert variant["parameters"] == 3_284_565
    assert variant["weights"] == result["weights"]
    assert content["dataset"]["protocol"] == "crop"
    assert content["environment"]["threads"] >= 1


def test_report_of_different_images_is_refused(quantized: Path, voc_root: Path) -> None:
    deploy.validate(voc_root=voc_root, out=quantized)
    path = quantized / VARIANT / "validation.json"
    other = json.loads(path.read_text())
    other["name"] = "rf-lw50"
    other["dataset"]["images"] = 1
    (quantized / "rf-lw50").mkdir()
    (quantized / "rf-lw50" / "validation.json").write_text(json.dumps(other))
    with pytest.raises(ReportError, match="different images or protocols"):
        deploy.report(out=quantized)
    other["dataset"]["images"] = 4
    other["runtime"] = "openvino"
    (quantized / "rf-lw50" / "validation.json").write_text(json.dumps(other))
    with pytest.raises(ReportError, match="different runtimes"):
        deploy.report(out=quantized)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"name": 1}'])
def test_report_unreadable_results_are_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / VARIANT / "validation.json"
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(ReportError, match=r"validation\.json"):
        deploy.report([VARIANT], out=tmp_path)


def test_report_of_results_of_another_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / VARIANT / "validation.json"
    path.parent.mkdir()
    path.write_text(json.dumps(validation() | {"schema": 1}))
    with pytest.raises(ReportError, match=r"has schema 1, .* reads 5: run 'deploy validate"):
        deploy.report([VARIANT], out=tmp_path)


@pytest.mark.slow
def test_export_all_does_every_stage_and_measures_its_time(tmp_path: Path, voc_root: Path) -> None:
    progress = SilentProgress()
    content = deploy.export_all(
        [VARIANT], images=2, limit=1, voc_root=voc_root, out=tmp_path / "a", progress=progress
    )
    assert list(progress.seconds) == [
        f"{stage} {VARIANT}"
        for stage in (
            "export",
            "simplify",
            "calibrate",
            "fp16",
            "levers",
            "int8",
            "validate",
            "layers",
        )
    ]
    assert content["variants"][VARIANT]["results"].keys() == {"torch", "fp32", "fp16", "int8"}
    assert (tmp_path / "a" / "report" / "report.html").is_file()


@pytest.mark.slow
def test_export_all_without_voc_draws_scenes_once_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VOC_ROOT", raising=False)
    monkeypatch.setattr(whole, "SCENES_COUNT", 2)
    first = deploy.export_all([VARIANT], images=2, limit=2)
    assert first["dataset"]["name"] == "scenes"
    assert first["dataset"]["images"] == 2
    drawn = tmp_path / "data" / "scenes" / "scenes.json"
    before = drawn.stat().st_mtime_ns
    (again,) = deploy.validate(limit=1)
    assert again["dataset"]["name"] == "scenes"
    assert drawn.stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.voc
def test_validate_shipped_parameters_reach_their_model_cards_figure(
    real_voc_root: Path, tmp_path: Path
) -> None:
    deploy.export(VARIANT, out=tmp_path)
    (result,) = deploy.validate(
        limit=24, protocol=Protocol.SQUASH, voc_root=real_voc_root, out=tmp_path
    )
    torch, fp32 = (result["results"][name] for name in ("torch", "fp32"))
    assert fp32["miou"] == pytest.approx(torch["miou"], abs=1e-4)
    seven = ("background", "cat", "cow", "dog", "horse", "person", "sheep")
    assert sum(torch["per_class_iou"][name] for name in seven) / 7 > 0.55


@pytest.mark.slow
def test_validate_in_openvino_agrees_with_onnxruntime(quantized: Path, voc_root: Path) -> None:
    pytest.importorskip("openvino")
    (ours,) = deploy.validate(voc_root=voc_root, out=quantized)
    (theirs,) = deploy.validate(voc_root=voc_root, out=quantized, runtime=Runtime.OPENVINO)
    assert theirs["runtime"] == "openvino"
    assert "openvino" in theirs["environment"]["versions"]
    assert theirs["results"]["int8"]["int8_convolutions"] == [78, 78]
    assert theirs["results"]["fp32"]["agreement"] > 0.999
    assert theirs["results"]["int8"]["miou"] == pytest.approx(
        ours["results"]["int8"]["miou"], abs=0.02
    )


def test_validate_in_openvino_that_is_not_installed_is_refused_at_once(
    exported: Path, voc_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(DeployError, match="OpenVINO is not installed"):
        deploy.validate(voc_root=voc_root, out=exported, runtime=Runtime.OPENVINO)
