import hashlib
import io
import json
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deploy.calibration.dataset import IGNORE_LABEL
from deploy.calibration.errors import DataError
from deploy.calibration.scenes import dataset as module
from deploy.calibration.scenes import draw_scene, scene_name, write_scenes
from deploy.calibration.scenes.compose import DRAWERS, TEXTURE, compose
from deploy.calibration.scenes.paint import coat, finish
from deploy.calibration.scenes.sketch import Sketch, smooth, turn
from deploy.calibration.scenes.textures import TEXTURES, texture
from deploy.calibration.voc import CLASSES, PALETTE, read_sample, read_split


def digests(root: Path) -> dict[str, str]:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("scenes") / "a"
    write_scenes(directory, train=3, val=2, seed=5)
    return directory


def test_scenes_are_a_voc_data_set_with_sizes_and_masks_like_vocs(small: Path) -> None:
    root = small / "VOCdevkit" / "VOC2012"
    names = {split: [s.name for s in read_split(root, split)] for split in ("train", "val")}
    assert [len(names[split]) for split in ("train", "val")] == [3, 2]
    assert not set(names["train"]) & set(names["val"])
    for sample in read_split(root, "train"):
        image, mask = read_sample(sample)
        assert image.shape[:2] == mask.shape
        assert max(mask.shape) == 500
        assert 333 <= min(mask.shape) <= 400
        with Image.open(sample.mask) as picture:
            assert picture.mode == "P"
            assert picture.getpalette() == PALETTE.ravel().tolist()


def test_same_seed_gives_the_same_bytes_whatever_the_counts(small: Path, tmp_path: Path) -> None:
    write_scenes(tmp_path / "b", train=4, val=2, seed=5)
    more, fewer = digests(tmp_path / "b"), digests(small)
    images = [name for name in fewer if name.endswith((".jpg", ".png"))]
    assert len(images) == 10
    assert all(more[name] == fewer[name] for name in images)


def test_seed_split_and_index_each_change_the_scene() -> None:
    keys = [(1, "val", 0), (2, "val", 0), (1, "train", 0), (1, "val", 1)]
    scenes = {draw_scene(seed=s, split=split, index=i) for s, split, i in keys}
    assert len(scenes) == len({scene_name(seed=s, split=p, index=i) for s, p, i in keys}) == 4


def test_scenes_show_every_class_about_equally_often() -> None:
    masks = [compose(np.random.default_rng([9, i]))[1] for i in range(60)]
    present = np.zeros(len(CLASSES))
    for mask in masks:
        labels = np.unique(mask)
        present[labels[labels != IGNORE_LABEL]] += 1
    assert present[0] == 60
    assert present[1:].min() >= 1
    assert present[1:].max() <= 20
    assert 1.5 < present[1:].sum() / 60 < 3


def test_contours_of_objects_are_ignored_and_a_few_pixels_wide() -> None:
    mask = compose(np.random.default_rng([9, 0]))[1]
    for axis in (0, 1):
        a, b = (mask[1:], mask[:-1]) if axis == 0 else (mask[:, 1:], mask[:, :-1])
        touching = (a != b) & (a != IGNORE_LABEL) & (b != IGNORE_LABEL)
        assert not touching.any()  # two labels never meet without a contour between them
    assert 0.005 < (mask == IGNORE_LABEL).mean() < 0.15


def test_every_class_but_background_has_a_drawer() -> None:
    assert tuple(DRAWERS) == CLASSES[1:]


@pytest.mark.parametrize("name", CLASSES[1:])
def test_drawer_varies_with_the_seed_and_fills_its_box(name: str) -> None:
    drawn = []
    for seed in range(2):
        sketch = DRAWERS[name](np.random.default_rng(seed))
        rgba, silhouette = sketch.rasterize(np.eye(2), 120, 350)
        assert rgba.shape == (*silhouette.shape, 4)
        assert rgba.dtype == np.float32
        assert 0 <= rgba.min() <= rgba.max() <= 1
        assert 0.15 < silhouette.mean() < 1
        drawn.append(rgba.tobytes())
    assert drawn[0] != drawn[1]


def test_mean_colour_of_an_object_hardly_tells_its_class() -> None:
    """A nearest-mean classifier on objects' mean colours stays far below what a shape gives."""
    colors: dict[str, list[np.ndarray]] = {}
    for name, draw in DRAWERS.items():
        for seed in range(24):
            rgba, inside = draw(np.random.default_rng([3, seed])).rasterize(np.eye(2), 40, 90)
            colors.setdefault(name, []).append(rgba[inside > 0][:, :3].mean(axis=0))
    means = np.stack([np.mean(c[:12], axis=0) for c in colors.values()])
    tests = np.stack([c[12:] for c in colors.values()])  # (classes, objects, 3)
    nearest = np.linalg.norm(tests[:, :, None] - means, axis=3).argmin(axis=2)
    accuracy = (nearest == np.arange(20)[:, None]).mean()
    assert accuracy < 0.25


def test_every_class_has_a_texture_and_patterns_tell_them_apart() -> None:
    assert tuple(TEXTURE) == CLASSES[1:]
    patterned = [name for name in TEXTURE.values() if name != "plain"]
    assert len(set(patterned)) == len(patterned) == 18


@pytest.mark.parametrize("name", TEXTURES)
def test_texture_is_a_factor_around_one_that_varies_with_the_seed(name: str) -> None:
    for height, width in ((60, 200), (200, 90)):
        first, second = (texture(np.random.default_rng(s), name, height, width) for s in (0, 1))
        assert first.shape == second.shape == (height, width)
        assert first.dtype == np.float32
        assert not np.array_equal(first, second)
        assert first.mean() == pytest.approx(1, abs=0.2)
        assert 0.02 < first.std() < 0.35
        assert first.min() > 0


def test_pattern_grows_with_the_drawing() -> None:
    def edges(side: int) -> int:
        row = texture(np.random.default_rng(0), "ribbed", side, side)[side // 2] > 1
        return int((row[1:] != row[:-1]).sum())

    assert edges(100) == pytest.approx(edges(300), abs=2)
    assert edges(300) == pytest.approx(2 * 24, abs=6)


def test_palettes_of_animals_and_things_overlap() -> None:
    rng = np.random.default_rng(0)
    animals = np.stack([coat(rng) for _ in range(400)])
    things = np.stack([finish(rng) for _ in range(400)])
    within = np.linalg.norm(animals[:, None] - things, axis=2).min(axis=1) < 0.12
    assert within.mean() > 0.8


def test_written_again_with_equal_settings_is_kept(small: Path) -> None:
    before = [p.stat().st_mtime_ns for p in sorted(small.rglob("*"))]
    assert write_scenes(small, train=3, val=2, seed=5) == small / "VOCdevkit" / "VOC2012"
    assert [p.stat().st_mtime_ns for p in sorted(small.rglob("*"))] == before


def test_other_settings_other_files_and_a_file_are_refused(small: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"other settings \(generator \d+, train 3, val 2, seed 5"):
        write_scenes(small, train=3, val=2, seed=6)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").touch()
    with pytest.raises(DataError, match=r"not empty and holds no scenes\.json"):
        write_scenes(tmp_path / "mine", train=1, val=1, seed=0)
    with pytest.raises(DataError, match="is a file"):
        write_scenes(tmp_path / "mine" / "photo.jpg", train=1, val=1, seed=0)
    (tmp_path / "mine" / "scenes.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        write_scenes(tmp_path / "mine", train=1, val=1, seed=0)


@pytest.mark.parametrize(("train", "val", "seed"), [(0, 0, 1), (-1, 2, 1), (1, 1, -1)])
def test_bad_counts_and_seeds_are_refused(tmp_path: Path, train: int, val: int, seed: int) -> None:
    with pytest.raises(DataError, match="none may be negative"):
        write_scenes(tmp_path / "x", train=train, val=val, seed=seed)
    assert not (tmp_path / "x").exists()


def test_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> tuple[bytes, bytes]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "draw_scene", fail)
    with pytest.raises(DataError, match="No space left on device"):
        write_scenes(tmp_path / "x", train=1, val=0, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_interrupted_writing_leaves_nothing_and_an_empty_folder_may_be_given(
    tmp_path: Path,
) -> None:
    def interrupt(done: int, total: int) -> None:
        assert (done, total) == (1, 2)
        raise KeyboardInterrupt

    (tmp_path / "x").mkdir()
    with pytest.raises(KeyboardInterrupt):
        write_scenes(tmp_path / "x", train=1, val=1, seed=0, progress=interrupt)
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
    assert list((tmp_path / "x").iterdir()) == []
    write_scenes(tmp_path / "x", train=0, val=1, seed=0)
    found = json.loads((tmp_path / "x" / "scenes.json").read_text())
    assert (found["train"], found["val"], found["seed"]) == (0, 1, 0)


@pytest.mark.slow
def test_a_scene_takes_at_most_a_tenth_of_a_second() -> None:
    seconds = []
    for batch in range(4):  # the best of four: other processes slow a shared processor down
        start = time.process_time()
        for i in range(10):
            image, _ = draw_scene(seed=0, split="val", index=10 * batch + i)
            assert Image.open(io.BytesIO(image)).format == "JPEG"
        seconds.append(time.process_time() - start)
    assert min(seconds) < 1.0


def test_rasterize_keeps_size_and_limit() -> None:
    sketch = Sketch()
    sketch.box(0, 0, 4, 1, np.ones(3))
    rgba, silhouette = sketch.rasterize(np.eye(2), 100, 1000)
    assert silhouette.shape == (51, 201)  # sides 50 and 200: their geometric mean is 100
    assert silhouette[:-1, :-1].all()
    np.testing.assert_array_equal(rgba[10, 10], 1)
    assert max(sketch.rasterize(np.eye(2), 100, 80)[1].shape) == 81


def test_see_through_parts_belong_to_the_silhouette() -> None:
    sketch = Sketch()
    sketch.ellipse((0, 0), (1, 1), np.ones(3), opacity=0.2)
    rgba, silhouette = sketch.rasterize(np.eye(2), 50, 100)
    assert silhouette[25, 25] == 1
    np.testing.assert_allclose(rgba[25, 25], 0.2, atol=0.01)


def test_smooth_passes_through_its_points_and_turn_is_clockwise_on_the_screen() -> None:
    square = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)]
    np.testing.assert_allclose(smooth(square, steps=5)[::5], square)
    np.testing.assert_allclose(turn([(1, 0)], 90), [(0, 1)], atol=1e-12)
    np.testing.assert_allclose(turn([(2, 1)], 180, pivot=(1, 1)), [(0, 1)], atol=1e-12)
