import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F

from deploy.calibration.dataset import IGNORE_LABEL
from deploy.calibration.errors import DataError
from deploy.calibration.voc import PALETTE
from deploy.models import build, load_checkpoint
from deploy.models.initialize import decoder_keys, initialize
from deploy.training.config import Augmentation, DataRoot, Status, TrainConfig, TrainError
from deploy.training.data import Batch, Batches, augment
from deploy.training.modes import schedule_factor
from deploy.training.run import CHECKPOINT, Run
from deploy.training.train import train


def write_root(directory: Path, count: int = 4, size: tuple[int, int] = (48, 64)) -> Path:
    """Write a tiny data set: a light square of class 8 on a dark ground."""
    rng = np.random.default_rng(0)
    root = directory / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for i in range(count):
        image = rng.integers(0, 60, (*size, 3), dtype=np.uint8)
        mask = np.zeros(size, dtype=np.uint8)
        y, x = rng.integers(4, 20, 2)
        image[y : y + 24, x : x + 24] += 150
        mask[y : y + 24, x : x + 24] = 8
        mask[y, x : x + 24] = IGNORE_LABEL
        Image.fromarray(image).save(root / "JPEGImages" / f"i{i}.jpg")
        picture = Image.fromarray(mask)
        picture.putpalette(PALETTE.tobytes())
        picture.save(root / "SegmentationClass" / f"i{i}.png")
    names = "".join(f"i{i}\n" for i in range(count))
    for split in ("train", "val"):
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(names)
    return directory


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_root(tmp_path_factory.mktemp("voc"))


def tiny(root: Path, target: Path, **changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {
        "variant": "rf-lw-mbv2",
        "data": (DataRoot(root=root),),
        "directory": target,
        "steps": 4,
        "batch_size": 2,
        "warmup": 1,
        "augmentation": Augmentation(size=64, crop=32),
        "precision": "float32",
        "threads": 1,
    }
    return TrainConfig(**(settings | changes))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# training


def test_training_lowers_the_loss_and_reports_it(data: Path, tmp_path: Path) -> None:
    seen: list[Status] = []
    config = tiny(
        data,
        tmp_path,
        steps=60,
        batch_size=4,
        validation=(DataRoot(root=data, split="val"),),
        encoder_rate=1e-3,
        decoder_rate=1e-3,
    )
    weights = train(config, seen.append)
    assert [s.step for s in seen] == [20, 40, 60]
    assert seen[0].initialized_from == "random parameters"
    assert seen[-1].loss < 0.7 * seen[0].loss
    assert seen[-1].rate < 1e-5
    (miou,) = seen[-1].miou
    assert 0 <= miou <= 100
    load_checkpoint(build("rf-lw-mbv2"), weights)
    load_checkpoint(build("rf-lw-mbv2"), tmp_path / CHECKPOINT)  # usable as weights too
    assert {v.dtype for v in load_file(weights).values()} == {torch.float32}


def test_training_twice_gives_the_same_parameters(data: Path, tmp_path: Path) -> None:
    a, b = (load_file(train(tiny(data, tmp_path / name))) for name in "ab")
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_resumed_training_continues_as_if_uninterrupted(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load_file(train(tiny(data, tmp_path / "whole")))

    config = tiny(data, tmp_path / "parts", checkpoint_minutes=0.0)
    advance = Run.advance

    def advance_twice(run: Run, batch: Batch) -> float:
        if run.step == 2:
            raise KeyboardInterrupt
        return advance(run, batch)

    monkeypatch.setattr(Run, "advance", advance_twice)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    monkeypatch.undo()
    assert sorted(p.name for p in (tmp_path / "parts").iterdir()) == [CHECKPOINT]
    parts = load_file(train(dataclasses.replace(config, resume=True)))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_frozen_statistics_stay_while_scales_learn(data: Path, tmp_path: Path) -> None:
    module = build("rf-lw-mbv2")
    initialize(module, None, seed=0)
    before = module.state_dict()
    frozen = load_file(train(tiny(data, tmp_path / "frozen")))
    free = load_file(train(tiny(data, tmp_path / "free", freeze_statistics=False)))
    key = "layer1.1.running_mean"
    assert torch.equal(frozen[key], before[key])
    assert not torch.equal(free[key], before[key])
    assert not torch.equal(frozen["layer1.1.weight"], before["layer1.1.weight"])


@pytest.mark.parametrize("learn_statistics", [False, True])
def test_frozen_stages_stay_and_the_rest_learns(
    learn_statistics: bool, data: Path, tmp_path: Path
) -> None:
    module = build("rf-lw-mbv2")
    initialize(module, None, seed=0)
    before = module.state_dict()
    config = tiny(data, tmp_path, frozen_stages=4, freeze_statistics=not learn_statistics)
    after = load_file(train(config))
    frozen = {key for key in after if key.startswith(("layer1.", "layer2.", "layer3.", "layer4."))}
    assert all(torch.equal(after[key], before[key]) for key in frozen)
    assert not torch.equal(
        after["layer5.0.output.0.0.weight"], before["layer5.0.output.0.0.weight"]
    )


@pytest.mark.parametrize("dropout", [False, True])
def test_dropout_can_be_left_out(dropout: bool, data: Path, tmp_path: Path) -> None:
    config = tiny(data, tmp_path, dropout=dropout, precision="float32")
    run = Run(config)
    batch = Batches(config.data, config.augmentation, batch_size=2, seed=0).batch(0)
    labels = batch.labels[:, ::2, ::2]
    with torch.inference_mode():
        logits = F.interpolate(run.network.eval()(batch.images), labels.shape[1:], mode="bilinear")
        loss = float(F.cross_entropy(logits, labels, ignore_index=IGNORE_LABEL))
    assert (run.advance(batch)["loss"] == pytest.approx(loss, rel=1e-4)) is not dropout


def test_a_stage_that_is_not_there_cannot_be_frozen(data: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"frozen_stages is 9: the encoder's last stage is layer8"):
        train(tiny(data, tmp_path, frozen_stages=9))


def test_retained_answers_stay_closer_to_those_of_the_start(data: Path, tmp_path: Path) -> None:
    start = train(tiny(data, tmp_path / "start"))
    image = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 3, 64, 64))).float()

    def answers(weights: Path) -> torch.Tensor:
        module = build("rf-lw-mbv2").eval()
        load_checkpoint(module, weights)
        with torch.inference_mode():
            return module(image).softmax(1)

    moved = {}
    for name, weight, retained in (
        ("free", 0.0, True),
        ("kept", 50.0, True),
        ("other", 50.0, False),
    ):
        roots = (DataRoot(root=data, retain=retained),)
        config = tiny(
            roots[0].root, tmp_path / name, init=start, steps=20, retain=weight, data=roots
        )
        moved[name] = float((answers(train(config)) - answers(start)).abs().mean())
    assert moved["kept"] < 0.5 * moved["free"]
    assert moved["other"] == moved["free"]  # only data that says so is retained


def test_encoder_and_decoder_have_their_own_rates(data: Path, tmp_path: Path) -> None:
    module = build("rf-lw-mbv2")
    initialize(module, None, seed=0)
    before = module.state_dict()
    config = tiny(data, tmp_path, steps=1, warmup=0, encoder_rate=1e-12, weight_decay=0.0)
    after = load_file(train(config))
    decoder = decoder_keys(module)
    moved = {key for key in after if (after[key] - before[key]).abs().max() > 1e-5}
    assert moved
    assert moved <= decoder


def test_bfloat16_training_runs(data: Path, tmp_path: Path) -> None:
    assert train(tiny(data, tmp_path, precision="bfloat16")).is_file()


def test_resume_without_or_with_a_foreign_checkpoint_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="nothing to resume"):
        train(tiny(data, tmp_path, resume=True))
    train(tiny(data, tmp_path, steps=1))
    with pytest.raises(TrainError, match="is a run of rf-lw-mbv2 with seed 0"):
        train(tiny(data, tmp_path, resume=True, seed=3))
    (tmp_path / CHECKPOINT).write_bytes(b"broken")
    with pytest.raises(TrainError, match="cannot be resumed"):
        train(tiny(data, tmp_path, resume=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variant": "rf-50"}, "choose one of rf50"),
        ({"data": ()}, "no data"),
        ({"data": (DataRoot(root=Path("x"), weight=0),)}, "must be positive"),
        ({"background_weight": 0.0}, "background_weight is 0.0: it must be positive"),
        ({"retain": 1.0}, "retain needs parameters to start from"),
        ({"retain": -1.0}, "must not be negative"),
        ({"frozen_stages": -1}, "must not be negative"),
        ({"steps": 0}, "at least 1"),
        ({"batch_size": 0}, "at least 1"),
        ({"device": "cuda:99"}, "choose cpu, or cuda where torch finds a GPU"),
        ({"device": "tpu"}, "choose cpu, or cuda where torch finds a GPU"),
        ({"precision": "float16"}, "float16 needs a GPU"),
        ({"encoder_rate": 0.0}, "learning rates must be positive"),
        ({"augmentation": Augmentation(crop=16)}, "at least 32"),
        ({"augmentation": Augmentation(resolution=0)}, "resolution is 0: above 0, at most 1"),
        ({"data": (DataRoot(root=Path("x"), zoom=(2.0, 1.0)),)}, r"zoom is \(2.0, 1.0\)"),
        ({"seed": -1}, "must not be negative"),
    ],
)
def test_bad_settings_are_refused(
    data: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(TrainError, match=message):
        tiny(data, tmp_path, **changes)


def test_missing_data_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no VOC2012 data set"):
        train(tiny(data, tmp_path, data=(DataRoot(root=tmp_path / "none"),)))
    with pytest.raises(DataError, match="choose one of train, val"):
        train(tiny(data, tmp_path, data=(DataRoot(root=data, split="test"),)))


def test_an_unwritable_directory_is_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TrainError, match="cannot be written"):
        train(tiny(data, tmp_path / "file", steps=1))


@pytest.mark.parametrize("name", ["cosine", "poly"])
def test_schedules_warm_up_and_decay(name: str, data: Path, tmp_path: Path) -> None:
    config = tiny(data, tmp_path, steps=1000, warmup=10, schedule=name)
    factors = [schedule_factor(config, step) for step in range(1000)]
    assert factors[0] == pytest.approx(1 / 11)
    assert factors[10] == 1
    assert np.all(np.diff(factors[10:]) < 0)
    assert factors[505] == pytest.approx(0.5 if name == "cosine" else 0.5**0.9)
    assert factors[-1] < 0.01


# data


def test_samples_depend_on_seed_step_and_number_alone(data: Path) -> None:
    roots, augmentation = [DataRoot(root=data)], Augmentation(size=64, crop=32)
    batches = Batches(roots, augmentation, batch_size=2, seed=1)
    later = list(batches.stream(3, 6, workers=2))
    assert len(later) == 3
    for step, (images, labels, _) in zip(range(3, 6), later, strict=True):
        again = Batches(roots, augmentation, batch_size=2, seed=1).batch(step)
        assert torch.equal(images, again.images)
        assert torch.equal(labels, again.labels)
    assert images.shape == (2, 3, 32, 32)
    assert images.dtype == torch.float32
    assert labels.shape == (2, 32, 32)
    assert not torch.equal(images[0], images[1])


def test_weights_set_the_share_of_each_data_set(data: Path, tmp_path: Path) -> None:
    bright = write_root(tmp_path, size=(40, 40))
    for path in (bright / "VOCdevkit/VOC2012/SegmentationClass").iterdir():
        mask = Image.fromarray(np.full((40, 40), 3, dtype=np.uint8))
        mask.putpalette(PALETTE.tobytes())
        mask.save(path)
    roots = [DataRoot(root=data, weight=3), DataRoot(root=bright, weight=1)]
    batches = Batches(roots, Augmentation(size=64, crop=32), batch_size=1, seed=0)
    share = np.mean([(batches.sample(step, 0)[1] == 3).any().item() for step in range(400)])
    assert share == pytest.approx(0.25, abs=0.06)


def test_augment_starts_from_the_deployment_scale_whatever_the_image_size() -> None:
    """Without zoom, an object of a small image gets the size that deployment gives it."""
    augmentation = Augmentation(size=100, crop=128, scale=(1.0, 1.0), color=0.0)
    for height, width in ((32, 64), (50, 100), (200, 400)):
        mask = np.ones((height, width), dtype=np.uint8)
        image = np.full((height, width, 3), 200, dtype=np.uint8)
        for seed in range(5):
            out, labels = augment(np.random.default_rng(seed), image, mask, augmentation)
            rows = (labels == 1).any(axis=1).sum()
            columns = (labels == 1).any(axis=0).sum()
            assert columns == pytest.approx(100, abs=1)
            assert 49 <= rows <= 101  # from the aspect kept (50) to the squash (100)
            assert np.all(out[labels == 1] == 200)
            assert set(np.unique(labels)) == {1, IGNORE_LABEL}


def test_a_data_set_may_have_a_zoom_of_its_own(data: Path) -> None:
    whole = Augmentation(size=64, crop=64, scale=(1.0, 1.0), color=0.0)
    seen = {}
    for zoom in (None, (0.5, 0.5)):
        batches = Batches([DataRoot(root=data, zoom=zoom)], whole, batch_size=4, seed=0)
        labels = batches.batch(0).labels
        seen[zoom] = (labels != IGNORE_LABEL).any(dim=1).sum(dim=1)  # columns that hold the image
    assert (seen[None] >= 63).all()
    assert ((seen[(0.5, 0.5)] >= 31) & (seen[(0.5, 0.5)] <= 33)).all()


def test_augment_blurs_down_to_the_resolution_and_leaves_enlarged_images_alone() -> None:
    rng = np.random.default_rng(0)

    def contrast(side: int, resolution: float) -> float:
        image = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        mask = np.ones((side, side), dtype=np.uint8)
        augmentation = Augmentation(
            size=100, crop=100, scale=(1.0, 1.0), color=0.0, resolution=resolution
        )
        outs = [augment(np.random.default_rng(s), image, mask, augmentation)[0] for s in range(20)]
        return float(np.mean([out.astype(float).std() for out in outs]))

    assert contrast(100, 0.5) < 0.85 * contrast(100, 1.0)
    assert contrast(50, 0.5) == pytest.approx(contrast(50, 1.0), rel=0.03)


def test_augment_keeps_image_and_mask_aligned() -> None:
    mask = np.zeros((60, 80), dtype=np.uint8)
    mask[20:45, 30:60] = 5
    image = np.where(mask[..., None] == 5, 240, 10).astype(np.uint8).repeat(3, axis=2)
    augmentation = Augmentation(size=80, crop=64, color=0.0)
    for seed in range(20):
        out, labels = augment(np.random.default_rng(seed), image, mask, augmentation)
        assert out.shape == (64, 64, 3)
        inside = labels != IGNORE_LABEL
        agree = (out[..., 0] > 125)[inside] == (labels == 5)[inside]
        assert agree.mean() > 0.95
