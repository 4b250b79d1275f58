from pathlib import Path

import numpy as np
import pytest
from conftest import SYNTHETIC_SPLITS, save_mask
from PIL import Image

from deploy.calibration import CLASSES, IGNORE_LABEL, PALETTE, DataError, find_voc_root, read_split
from deploy.calibration.voc import (
    DEFAULT_ROOT,
    SCENES_ROOT,
    Sample,
    name_data_set,
    read_image,
    read_mask,
    read_sample,
)

SIZE = (6, 8)  # height, width of the images drawn here


@pytest.fixture
def noise() -> np.ndarray:
    """An RGB image whose pixels all differ."""
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def write_list(root: Path, content: str, split: str = "train") -> None:
    (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(content, encoding="utf-8")


@pytest.mark.parametrize(
    ("label", "color"),
    [
        (0, (0, 0, 0)),
        (1, (128, 0, 0)),  # aeroplane
        (2, (0, 128, 0)),  # bicycle
        (8, (64, 0, 0)),  # cat
        (12, (64, 0, 128)),  # dog
        (15, (192, 128, 128)),  # person
        (20, (0, 64, 128)),  # tvmonitor
        (255, (224, 224, 192)),  # the border
    ],
)
def test_palette_has_vocs_colors(label: int, color: tuple[int, int, int]) -> None:
    assert tuple(PALETTE[label].tolist()) == color


def test_palette_and_classes_are_complete() -> None:
    assert PALETTE.shape == (256, 3)
    assert PALETTE.dtype == np.uint8
    assert len(np.unique(PALETTE, axis=0)) == 256
    assert len(set(CLASSES)) == 21
    assert [CLASSES[i] for i in (0, 8, 12, 15)] == ["background", "cat", "dog", "person"]
    assert list(CLASSES[1:]) == sorted(CLASSES[1:])


@pytest.mark.parametrize("above", [0, 1, 2], ids=["itself", "VOCdevkit", "parent"])
def test_find_voc_root_takes_three_forms(above: int, voc_root: Path) -> None:
    given = [voc_root, *voc_root.parents][above]
    assert find_voc_root(given) == voc_root


def test_find_voc_root_prefers_the_argument_to_the_environment(
    voc_root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VOC_ROOT", str(tmp_path / "absent"))
    assert find_voc_root(voc_root) == voc_root


def test_find_voc_root_reads_the_environment(
    voc_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOC_ROOT", str(voc_root.parent.parent))
    assert find_voc_root() == voc_root


@pytest.mark.parametrize("value", [None, ""], ids=["unset", "empty"])
def test_find_voc_root_falls_back_on_data(
    value: str | None, voc_root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("VOC_ROOT", raising=False)
    if value is not None:
        monkeypatch.setenv("VOC_ROOT", value)
    voc_root.parent.rename(tmp_path / "moved")
    (tmp_path / "data").mkdir()
    (tmp_path / "moved").rename(tmp_path / "data" / "VOCdevkit")
    monkeypatch.chdir(tmp_path)
    assert find_voc_root() == DEFAULT_ROOT


def test_find_voc_root_falls_back_to_drawn_scenes_only_without_voc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VOC_ROOT", raising=False)
    for root in (SCENES_ROOT, DEFAULT_ROOT):
        (root / "ImageSets" / "Segmentation").mkdir(parents=True)
        assert find_voc_root() == root


def test_name_data_set_tells_scenes_from_voc(voc_root: Path) -> None:
    assert name_data_set(voc_root) == "VOC2012"
    (voc_root.parent.parent / "scenes.json").write_text("{}")
    assert name_data_set(voc_root) == "scenes"


@pytest.mark.parametrize("source", ["argument", "environment"])
def test_find_voc_root_without_data_says_what_to_do(
    source: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    absent = tmp_path / "absent"
    monkeypatch.setenv("VOC_ROOT", str(absent))
    with pytest.raises(
        DataError, match=r"absent .*--voc-root DIR, set VOC_ROOT, or run 'deploy fetch-voc"
    ):
        find_voc_root(absent if source == "argument" else None)


@pytest.mark.parametrize("split", SYNTHETIC_SPLITS)
def test_read_split_keeps_the_lists_order(split: str, voc_root: Path) -> None:
    names = [f"{split}_{i}" for i in reversed(range(SYNTHETIC_SPLITS[split]))]
    write_list(voc_root, "\n".join(names), split)
    samples = read_split(voc_root, split)
    assert [sample.name for sample in samples] == names
    assert all(sample.image == voc_root / "JPEGImages" / f"{sample.name}.jpg" for sample in samples)
    assert all(s.mask == voc_root / "SegmentationClass" / f"{s.name}.png" for s in samples)


def test_read_split_takes_windows_line_ends_and_blank_lines(voc_root: Path) -> None:
    write_list(voc_root, "train_1\r\n\r\n train_0 \r\n")
    assert [sample.name for sample in read_split(voc_root, "train")] == ["train_1", "train_0"]


def test_read_split_of_an_unknown_split_lists_the_known_ones(voc_root: Path) -> None:
    with pytest.raises(DataError, match=r"no split 'test' at .*test\.txt: .* train, val"):
        read_split(voc_root, "test")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "lists no images"),
        ("\n \n", "lists no images"),
        ("train_0\ntrain_1\ntrain_0\n", "lists 'train_0' more than once"),
        ("../x\n", r"lists '\.\./x': names of images only"),
        ("/etc/x\n", "lists '/etc/x': names of images only"),
        ("sub/train_0\n", "names of images only"),
        ("..\\x\n", "names of images only"),
        ("..\n", "names of images only"),
        ("train_0\nabsent\n", r"absent\.jpg does not exist, but .*train\.txt lists 'absent'"),
    ],
)
def test_read_split_of_a_bad_list(content: str, message: str, voc_root: Path) -> None:
    write_list(voc_root, content)
    with pytest.raises(DataError, match=message) as caught:
        read_split(voc_root, "train")
    assert "train.txt" in str(caught.value)


def test_read_split_of_a_list_that_is_no_text(voc_root: Path) -> None:
    (voc_root / "ImageSets" / "Segmentation" / "train.txt").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(DataError, match=r"train\.txt cannot be read as a list of names"):
        read_split(voc_root, "train")


@pytest.mark.parametrize(
    "missing", ["JPEGImages/train_3.jpg", "SegmentationClass/train_3.png"], ids=["image", "mask"]
)
def test_read_split_with_a_missing_file(missing: str, voc_root: Path) -> None:
    (voc_root / missing).unlink()
    with pytest.raises(DataError, match=f"{missing} does not exist, but .* lists 'train_3'"):
        read_split(voc_root, "train")


def test_read_sample_of_the_synthetic_set(voc_root: Path) -> None:
    shapes = set()
    for sample in read_split(voc_root, "train") + read_split(voc_root, "val"):
        image, mask = read_sample(sample)
        assert image.shape == (*mask.shape, 3)
        assert image.dtype == mask.dtype == np.uint8
        labels = set(np.unique(mask).tolist())
        assert IGNORE_LABEL in labels
        assert labels - {IGNORE_LABEL} <= set(range(21))
        shapes.add(mask.shape)
    assert {height > width for height, width in shapes if height != width} == {True, False}


def test_read_sample_with_sizes_that_differ(voc_root: Path) -> None:
    sample = read_split(voc_root, "val")[0]
    save_mask(sample.mask, np.zeros((48, 36), dtype=np.uint8))
    with pytest.raises(DataError, match=r"val_0\.png is 36x48 but its image is 48x36"):
        read_sample(sample)


def test_read_mask_returns_the_palettes_indices(tmp_path: Path) -> None:
    labels = np.append(np.arange(21), [255, 0, 7]).astype(np.uint8).reshape(4, 6)
    save_mask(tmp_path / "palette.png", labels)
    Image.fromarray(labels).save(tmp_path / "grey.png")
    for name in ("palette.png", "grey.png"):
        assert np.array_equal(read_mask(tmp_path / name), labels)


@pytest.mark.parametrize(("label", "num_classes"), [(21, 21), (254, 21), (7, 7)])
def test_read_mask_with_a_label_beyond_the_classes(
    label: int, num_classes: int, tmp_path: Path
) -> None:
    labels = np.zeros(SIZE, dtype=np.uint8)
    labels[3, 4] = label
    save_mask(tmp_path / "odd.png", labels)
    with pytest.raises(DataError, match=rf"odd\.png has label {label}, beyond the {num_classes}"):
        read_mask(tmp_path / "odd.png", num_classes)
    assert read_mask(tmp_path / "odd.png", label + 1)[3, 4] == label


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "1", "I;16"])
def test_read_mask_of_another_mode(mode: str, tmp_path: Path) -> None:
    Image.new(mode, SIZE[::-1]).save(tmp_path / "colors.png")
    with pytest.raises(DataError, match=rf"colors\.png has mode {mode}: masks are 8-bit"):
        read_mask(tmp_path / "colors.png")


def test_read_image_of_rgb_returns_the_pixels(noise: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(noise).save(tmp_path / "image.png")
    image = read_image(tmp_path / "image.png")
    assert image.dtype == np.uint8
    assert np.array_equal(image, noise)


def test_read_image_of_a_grey_jpeg_repeats_it(noise: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "grey.jpg"
    Image.fromarray(noise[:, :, 0]).save(path, quality=100, format="JPEG")
    image = read_image(path)
    assert image.shape == (*SIZE, 3)
    assert (image == image[:, :, :1]).all()
    assert np.abs(image[:, :, 0].astype(int) - noise[:, :, 0]).max() <= 3


def test_read_image_of_a_cmyk_jpeg_is_rgb(tmp_path: Path) -> None:
    path = tmp_path / "cmyk.jpg"
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(path, quality=100)  # no cyan: red
    image = read_image(path)
    assert image.shape == (16, 16, 3)
    assert np.abs(image.astype(int) - (255, 0, 0)).max() <= 6


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P"])
def test_read_image_of_png_data_under_jpg(mode: str, noise: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    picture = Image.fromarray(noise).convert(mode)
    picture.save(path, format="PNG")
    expected = np.asarray(picture.convert("RGB"))
    assert np.array_equal(read_image(path), expected)


@pytest.mark.parametrize("transparency", [3, bytes([0, 128, 255])], ids=["index", "alphas"])
def test_read_image_of_a_transparent_palette_keeps_its_colors(
    transparency: int | bytes, noise: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "palette.jpg"
    picture = Image.fromarray(noise).quantize(8)
    picture.save(path, format="PNG", transparency=transparency)
    assert np.array_equal(read_image(path), np.asarray(picture.convert("RGB")))


def test_read_image_of_16_bits_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep.jpg"
    Image.fromarray(np.full(SIZE, 1000, dtype=np.uint16)).save(path, format="PNG")
    with pytest.raises(DataError, match=r"deep\.jpg has mode I;16: images have 8 bits"):
        read_image(path)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_read_image_does_not_apply_an_exif_orientation(
    orientation: int, noise: np.ndarray, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    plain, turned = tmp_path / "plain.jpg", tmp_path / "turned.jpg"
    Image.fromarray(noise).save(plain)
    Image.fromarray(noise).save(turned, exif=exif)
    with Image.open(turned) as written:
        assert written.getexif()[0x0112] == orientation
    assert np.array_equal(read_image(turned), read_image(plain))


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.6, 0.9])
@pytest.mark.parametrize("extension", ["jpg", "png"])
def test_read_of_a_truncated_file(
    extension: str, kept: float, noise: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / f"torn.{extension}"
    picture = Image.fromarray(noise if extension == "jpg" else noise[:, :, 0] % 21)
    picture.resize((64, 64)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(DataError, match=rf"torn\.{extension} cannot be decoded"):
        (read_image if extension == "jpg" else read_mask)(path)


def test_read_image_of_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.jpg cannot be decoded"):
        read_image(tmp_path / "absent.jpg")


@pytest.mark.voc
@pytest.mark.parametrize("split", ["train", "val"])
def test_real_images_fit_their_masks(split: str, real_voc_root: Path) -> None:
    samples: list[Sample] = read_split(real_voc_root, split)
    present = set()
    for sample in samples[:: max(1, len(samples) // 10)]:
        image, mask = read_sample(sample)
        assert image.shape == (*mask.shape, 3)
        present |= set(np.unique(mask).tolist())
    assert len(present - {0, IGNORE_LABEL}) > 1


@pytest.mark.voc
def test_real_masks_have_vocs_palette(real_voc_root: Path) -> None:
    sample = read_split(real_voc_root, "val")[0]
    with Image.open(sample.mask) as mask:
        assert mask.mode == "P"
        stored = np.asarray(mask.getpalette()).reshape(-1, 3)
    assert np.array_equal(stored[:21], PALETTE[:21])
