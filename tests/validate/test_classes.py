"""Names and number of classes: of parameters, of graphs, of training runs."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from graphs import refine_model
from PIL import Image
from roads import NAMES
from safetensors.torch import load_file, save_file

import deploy
from deploy import models
from deploy.calibration import CLASSES, DataError, describe_data_set
from deploy.errors import DeployError, GraphError
from deploy.graph.metadata import set_metadata
from deploy.models import ModelError
from deploy.models.initialize import initialize
from deploy.quantize.gate import Gate
from deploy.training.config import Augmentation, DataRoot, Status, TrainConfig, TrainError
from deploy.training.run import CHECKPOINT
from deploy.training.train import train
from deploy.validate.classes import check_classes, find_named_data_set, name_classes

VARIANT = models.DEFAULT_VARIANT


# parameters


def checkpoint(path: Path, classes: int, metadata: dict[str, str] | None = None) -> Path:
    module = models.build(VARIANT, classes)
    initialize(module, None, seed=1)
    save_file(module.state_dict(), path, metadata)
    return path


def test_the_checkpoint_says_how_many_classes_there_are(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "five.safetensors", 5)
    module, _ = models.build_with_weights(VARIANT, path)
    assert models.count_classes(module.state_dict()) == 5
    with pytest.raises(ModelError, match=r"five\.safetensors has 5 classes, but the data has 4"):
        models.build_with_weights(VARIANT, path, num_classes=4)
    module, source = models.build_with_weights("rf-lw101", num_classes=4)
    assert source.kind == "random"
    assert models.count_classes(module.state_dict()) == 4


def test_a_new_classifier_starts_where_the_class_count_is_another(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "five.safetensors", 5)
    module = models.build(VARIANT, 4)
    said = initialize(module, path, seed=7)
    assert said == f"{path} but for its classifier of 5 classes: that of 4 starts anew"
    theirs, fresh = load_file(path), models.build(VARIANT, 4)
    initialize(fresh, None, seed=7)
    for name, value in module.state_dict().items():
        expected = fresh.state_dict()[name] if name.startswith("segm.") else theirs[name]
        assert torch.equal(value, expected), name
    same = models.build(VARIANT, 5)
    assert initialize(same, path) == f"all parameters of {path}"


def test_names_come_from_the_data_then_the_checkpoint_then_voc(
    roads: Path, reordered: Path, tmp_path: Path
) -> None:
    module = models.build(VARIANT, 4)
    plain, named, foreign = (
        models.WeightsSource(kind="file", path=checkpoint(tmp_path / f"{i}.safetensors", 4, kept))
        for i, kept in enumerate((None, {"classes": ",".join(NAMES)}, {"classes": "4"}))
    )
    assert name_classes(module, plain, describe_data_set(roads)) == NAMES
    assert name_classes(module, named, describe_data_set(roads)) == NAMES
    assert name_classes(module, named, None) == NAMES
    for unnamed in (plain, foreign):
        assert name_classes(module, unnamed, None) == ("class0", "class1", "class2", "class3")
    random = models.WeightsSource(kind="random")
    assert name_classes(models.build(VARIANT), random, None) == CLASSES
    with pytest.raises(GraphError, match=r"label 1 is 'road' in .*1\.safetensors, but 'car' in"):
        name_classes(module, named, describe_data_set(reordered))


def test_an_export_names_data_of_ones_own_that_the_environment_says(
    roads: Path, voc_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOC_ROOT", str(roads))
    found = find_named_data_set(None)
    assert found is not None
    assert found.classes == NAMES
    monkeypatch.setenv("VOC_ROOT", str(voc_root))
    assert find_named_data_set(None) is None  # VOC's names need no data
    monkeypatch.setenv("VOC_ROOT", str(roads / "absent"))
    assert find_named_data_set(None) is None
    with pytest.raises(DataError, match="no VOC2012 data set"):
        find_named_data_set(roads / "absent")


# graphs


def graph(count: int, named: str | None) -> onnx.ModelProto:
    model = refine_model(classes=count)
    set_metadata(model, {"fit": "squash"} | ({"classes": named} if named else {}))
    return model


@pytest.mark.parametrize(
    ("count", "named", "message"),
    [
        (4, "ground,road,car,sky", None),
        (4, None, None),  # another tool's
        (4, "class0,class1,class2,class3", None),  # exported without data
        (4, "a key of another tool's", None),
        (5, None, r"net\.onnx has 5 classes, but data set roads has 4"),
        (21, ",".join(CLASSES), r"net\.onnx has 21 classes, but data set roads has 4"),
        (4, "ground,road,bus,sky", "label 2 is 'bus' in .*, but 'car' in data set roads: correct"),
        (
            4,
            "ground,car,road,sky",
            "label 1 is 'car' in net.onnx, but 'road' in data set roads, the same classes in "
            "another order: correct the classes in .*dataset.toml",
        ),
    ],
)
def test_a_graph_of_other_classes_than_the_data_is_refused(
    count: int, named: str | None, message: str | None, roads: Path
) -> None:
    data = describe_data_set(roads)
    if message is None:
        return check_classes(Path("net.onnx"), graph(count, named), data)
    with pytest.raises(GraphError, match=message):
        check_classes(Path("net.onnx"), graph(count, named), data)
    return None


def test_validate_and_the_gate_refuse_another_order_of_the_same_classes(
    reordered: Path, tmp_path: Path
) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(graph(4, ",".join(NAMES)), path)
    options: dict[str, Any] = {"voc_root": reordered, "out": tmp_path / "out"}
    with pytest.raises(GraphError, match="the same classes in another order"):
        deploy.validate([str(path)], **options)
    gate = Gate(max_drop=1)
    with pytest.raises(GraphError, match="the same classes in another order"):
        deploy.quantize([str(path)], fp16=False, images=2, gate=gate, **options)


def test_vacc_takes_the_images_as_they_are_of_one_kind(roads: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(graph(4, None), path)

    def write() -> Path:
        options: dict[str, Any] = {"images": 6, "voc_root": roads, "out": tmp_path / "out"}
        (recipe,) = deploy.quantize([str(path)], fp16=False, target="vacc", **options)
        return recipe.path

    folder = write()
    assert "    suffix: png\n" in (folder / "compile.yaml").read_text()
    assert {p.suffix for p in (folder / "images").iterdir()} == {".png"}
    image = roads / "images" / "train_0.png"
    Image.open(image).save(image.with_suffix(".jpg"))
    image.unlink()
    with pytest.raises(DeployError, match="images of one kind, but these are jpg and png"):
        write()


# training


def tiny(root: Path, target: Path, **changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {
        "variant": VARIANT,
        "data": (DataRoot(root=root),),
        "directory": target,
        "steps": 1,
        "batch_size": 2,
        "augmentation": Augmentation(size=64, crop=32),
        "precision": "float32",
        "threads": 1,
    }
    return TrainConfig(**(settings | changes))


def test_data_sets_of_other_classes_are_not_mixed(
    roads: Path, reordered: Path, voc_root: Path, tmp_path: Path
) -> None:
    both = (DataRoot(root=roads), DataRoot(root=reordered))
    with pytest.raises(DataError, match=r"label 1 is 'road' in data set roads .* but 'car' in"):
        train(tiny(roads, tmp_path / "run", data=both))
    other = (DataRoot(root=voc_root, split="val"),)
    with pytest.raises(DataError, match=r"roads .* and VOC2012 .* have 4 and 21 classes"):
        train(tiny(roads, tmp_path / "run", validation=other))
    copied = Path(shutil.copytree(roads, tmp_path / "copied"))
    data = (DataRoot(root=roads), DataRoot(root=copied))
    assert train(tiny(roads, tmp_path / "run", data=data)).is_file()


def test_a_run_is_resumed_on_its_own_classes_only(
    roads: Path, reordered: Path, tmp_path: Path
) -> None:
    config = tiny(roads, tmp_path / "run")
    weights = train(config)
    assert models.read_class_names(weights) == NAMES
    changed = dataclasses.replace(config, data=(DataRoot(root=reordered),), resume=True, steps=2)
    with pytest.raises(TrainError, match=r"run on other classes \(ground, road, car, …; 4\) than"):
        train(changed)
    train(dataclasses.replace(config, resume=True, steps=2))


def test_training_from_a_voc_checkpoint_says_that_the_classifier_is_new(
    roads: Path, tmp_path: Path
) -> None:
    seen: list[Status] = []
    init = checkpoint(tmp_path / "voc.safetensors", 21)
    weights = train(tiny(roads, tmp_path / "run", init=init), seen.append)
    assert str(seen[0].initialized_from).endswith(
        "but for its classifier of 21 classes: that of 4 starts anew"
    )
    assert load_file(weights)["segm.weight"].shape[0] == 4
    with pytest.raises(TrainError, match="answers with 21 classes, but roads has 4"):
        train(tiny(roads, tmp_path / "run", init=init, retain=1.0))
    state = torch.load(tmp_path / "run" / CHECKPOINT, weights_only=True)
    assert state["classes"] == list(NAMES)
