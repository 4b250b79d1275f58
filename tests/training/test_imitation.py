from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from deploy.calibration.errors import DataError
from deploy.models.fitting import unexplained
from deploy.models.initialize import decoder_keys
from deploy.training.config import (
    Augmentation,
    DataRoot,
    Status,
    TeacherChoice,
    TrainConfig,
    TrainError,
)
from deploy.training.data import Batch, Batches
from deploy.training.imitation import (
    Answer,
    answer,
    divergence,
    imitation_losses,
    load_teacher,
)
from deploy.training.run import CHECKPOINT, Run
from deploy.training.train import train
from tests.training.test_train import write_root

TEACHER = TeacherChoice(variant="rf-lw-mbv2")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_root(tmp_path_factory.mktemp("voc"))


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def imitating(root: Path, target: Path, **changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {
        "variant": "rf-lw50",
        "data": (DataRoot(root=root),),
        "teacher": TEACHER,
        "directory": target,
        "steps": 3,
        "batch_size": 2,
        "warmup": 1,
        "freeze_statistics": False,
        "augmentation": Augmentation(size=64, crop=32),
        "precision": "float32",
        "threads": 1,
    }
    return TrainConfig(**(settings | changes))


def photographs(root: Path) -> DataRoot:
    return DataRoot(root=root / "VOCdevkit" / "VOC2012" / "JPEGImages", masks=False)


# losses


def test_losses_are_zero_where_the_answers_are_equal() -> None:
    features = tuple(torch.randn(2, 8, 4, 4) for _ in range(4))
    same = Answer(features, torch.randn(2, 21, 4, 4))
    losses = imitation_losses(same, same)
    assert set(losses) == {"1/4", "1/8", "1/16", "1/32", "logits"}
    assert all(abs(float(loss)) < 1e-5 for loss in losses.values())


def test_a_channels_mean_explains_nothing() -> None:
    wanted = torch.randn(2, 8, 16, 16) + torch.arange(8.0)[:, None, None]
    mean = wanted.mean((0, 2, 3), keepdim=True).expand_as(wanted)
    assert float(unexplained(mean, wanted)) == pytest.approx(1, abs=1e-4)
    assert float(unexplained(0.5 * (mean + wanted), wanted)) == pytest.approx(0.25, abs=1e-4)


def test_features_are_compared_in_the_channels_that_both_have() -> None:
    wanted = torch.randn(1, 4, 8, 8)
    wider = torch.cat([wanted, torch.randn(1, 4, 8, 8)], 1)
    assert float(unexplained(wider, wanted)) == 0


def test_divergence_is_that_of_the_softened_answers() -> None:
    found, wanted = torch.randn(2, 5, 3, 3), torch.randn(2, 5, 3, 3)
    p, q = (wanted / 2).softmax(1), (found / 2).softmax(1)
    expected = 4 * (p * (p / q).log()).sum(1).mean()
    assert float(divergence(found, wanted)) == pytest.approx(float(expected), rel=1e-5)


def test_the_whole_and_the_first_stages_have_the_same_features() -> None:
    teacher = load_teacher(TEACHER)
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        whole, first = answer(teacher, images, 0), answer(teacher, images, 3)
        assert torch.equal(whole.logits, teacher(images))  # type: ignore[arg-type]
    assert first.logits is None
    assert len(first.features) == 3
    for found, wanted in zip(first.features, whole.features, strict=False):
        assert torch.equal(found, wanted)


# runs


def test_training_comes_nearer_to_the_teacher_without_masks(data: Path, tmp_path: Path) -> None:
    seen: list[Status] = []
    config = imitating(
        data, tmp_path / "run", data=(photographs(data),), steps=61, stages=1, encoder_rate=2e-3,
        decoder_rate=2e-3,
    )  # fmt: skip
    train(config, seen.append)
    assert "20 kernels of the decoder of rf-lw-mbv2" in str(seen[0].initialized_from)
    assert seen[-2].parts["1/4"] < 0.7 * seen[0].parts["1/4"]


def test_all_parts_are_told_and_the_labels_count_where_there_are_masks(
    data: Path, tmp_path: Path
) -> None:
    run = Run(imitating(data, tmp_path / "a", data=(DataRoot(root=data), photographs(data))))
    parts = run.advance(_batch(run, labelled=True))
    assert set(parts) == {"loss", "1/4", "1/8", "1/16", "1/32", "logits", "labels"}
    assert parts["loss"] == pytest.approx(sum(v for k, v in parts.items() if k != "loss"), rel=1e-5)
    assert "labels" not in run.advance(_batch(run, labelled=False))


def _batch(run: Run, *, labelled: bool) -> Batch:
    config = run.config
    roots = config.data[:1] if labelled else config.data[1:]
    return Batches(roots, config.augmentation, 2, 0).batch(0)


def test_stages_and_frozen_stages_leave_the_rest_alone(data: Path, tmp_path: Path) -> None:
    config = imitating(data, tmp_path / "run", stages=2, frozen_stages=1)
    run = Run(config)
    before = {key: value.clone() for key, value in run.network.state_dict().items()}
    trained = load_file(train(config))
    changed = {key.split(".")[0] for key, value in trained.items() if not value.equal(before[key])}
    assert changed == {"layer2", "p_ims1d2_outl4_dimred", "p_ims1d2_outl3_dimred"}


def test_a_run_that_is_cut_off_ends_as_one_that_is_not(data: Path, tmp_path: Path) -> None:
    whole = load_file(train(imitating(data, tmp_path / "whole", variant="rf-lw-mbv2")))
    cut = imitating(data, tmp_path / "cut", variant="rf-lw-mbv2")
    run = Run(cut)
    for step in range(2):
        run.advance(Batches(cut.data, cut.augmentation, cut.batch_size, cut.seed).batch(step))
    run.save()
    assert (tmp_path / "cut" / CHECKPOINT).is_file()
    resumed = load_file(train(imitating(data, tmp_path / "cut", variant="rf-lw-mbv2", resume=True)))
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())


def test_a_decoder_of_init_is_kept(data: Path, tmp_path: Path) -> None:
    first = train(imitating(data, tmp_path / "first", stages=1))
    run = Run(imitating(data, tmp_path / "second", init=first))
    trained = load_file(first)
    state = run.network.state_dict()
    assert all(torch.equal(state[key], trained[key]) for key in decoder_keys(run.network))
    assert run.source == f"all parameters of {first}"


def test_a_resnet_may_start_with_the_blocks_of_a_mobilenet(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train(imitating(data, tmp_path / "first", stages=1))
    monkeypatch.setattr("deploy.training.run.EMBEDDING_PIXELS", 12 * 32**2)
    changes: dict[str, Any] = {"init": first, "freeze_statistics": True}
    plain = Run(imitating(data, tmp_path / "run", **changes))
    run = Run(imitating(data, tmp_path / "run", **changes, embed=True))
    assert run.source is not None
    assert run.source.startswith(f"all parameters of {first}, its blocks in layer2 0.")
    images = Batches((DataRoot(root=data),), Augmentation(size=64, crop=32), 12, 0).batch(0).images
    teacher = load_teacher(TEACHER)
    with torch.inference_mode():
        wanted = answer(teacher, images, 0)
        near, far = (
            imitation_losses(answer(network.eval(), images, 0), wanted)
            for network in (run.network, plain.network)
        )
    assert torch.equal(near["1/4"], far["1/4"])  # the first stage is what it was
    assert near["1/8"] < 0.7 < far["1/8"]


def test_zeros_of_kernels_stay_zero_also_when_resumed(data: Path, tmp_path: Path) -> None:
    first = train(imitating(data, tmp_path / "first", stages=1))
    state = load_file(first)
    kernel = state["layer2.0.conv2.weight"]
    kernel.flatten(2)[:, :, ::2] = 0
    save_file(state, first)
    changes: dict[str, Any] = {"init": first, "keep_zeros": True, "weight_decay": 0.1}
    cut = imitating(data, tmp_path / "run", **changes)
    run = Run(cut)
    run.advance(Batches(cut.data, cut.augmentation, cut.batch_size, cut.seed).batch(0))
    run.save()
    trained = load_file(train(imitating(data, tmp_path / "run", resume=True, keep_zeros=True)))
    after = trained["layer2.0.conv2.weight"]
    assert ((after == 0) == (kernel == 0)).all()
    assert (after != kernel)[kernel != 0].float().mean() > 0.9
    free = load_file(train(imitating(data, tmp_path / "free", init=first)))
    assert (free["layer2.0.conv2.weight"][kernel == 0] != 0).any()


# refusals


def test_a_teacher_without_parameters_is_refused(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(TrainError, match=r"rf101: no trained parameters .* --teacher rf101=PATH"):
        Run(imitating(data, tmp_path, teacher=TeacherChoice(variant="rf101")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": None, "data": "photographs"}, "need a teacher"),
        ({"teacher": TeacherChoice(variant="vgg")}, "'vgg': choose one of"),
        ({"teacher": None, "stages": 2}, "stages need a teacher"),
        ({"embed": True, "teacher": None}, "embed needs a ResNet, and a teacher with MobileNetV2"),
        ({"embed": True, "variant": "rf-lw-nasnet"}, "embed needs a ResNet"),
        ({"embed": True, "teacher": TeacherChoice(variant="rf-lw50")}, "embed needs a ResNet"),
        ({"stages": 5}, "stages is 5: 1 to 4, or 0"),
        ({"augmentation": Augmentation(size=64, crop=34)}, "crop is 34: .* a multiple of 4"),
        ({"label_weight": -1.0}, "label_weight is -1.0"),
    ],
)
def test_what_cannot_be_is_refused(
    data: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    if changes.get("data") == "photographs":
        changes = {**changes, "data": (photographs(data),)}
    with pytest.raises(TrainError, match=message):
        imitating(data, tmp_path, **changes)


def test_a_teacher_of_other_classes_is_refused(data: Path, tmp_path: Path) -> None:
    (data / "VOCdevkit" / "VOC2012" / "dataset.toml").write_text(
        'name = "two"\nclasses = ["ground", "square"]\n'
        'images = "JPEGImages"\nmasks = "SegmentationClass"\nsplits = "ImageSets/Segmentation"\n'
    )
    try:
        with pytest.raises(TrainError, match="rf-lw-mbv2 knows 21 classes, but there are 2 here"):
            Run(imitating(data, tmp_path))
    finally:
        (data / "VOCdevkit" / "VOC2012" / "dataset.toml").unlink()


def test_a_folder_without_photographs_is_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    root = DataRoot(root=tmp_path / "empty", masks=False)
    with pytest.raises(DataError, match="no images in"):
        train(imitating(data, tmp_path / "run", data=(root,)))
