"""The file that describes a data set of one's own, and the data that are read by it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from roads import COLORS, HEAD, IGNORE, NAMES, PLACES

from deploy import models
from deploy.calibration import (
    CLASSES,
    IGNORE_LABEL,
    PALETTE,
    DataError,
    describe_data_set,
    find_voc_root,
    read_split,
)
from deploy.calibration.dataset import read_data_set
from deploy.calibration.voc import read_mask, read_sample
from deploy.models import ModelError

VARIANT = models.DEFAULT_VARIANT


def described(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "dataset.toml"
    path.write_text(text, encoding="utf-8")
    return path


# the file


def test_a_file_is_read_with_the_defaults_of_vocs_layout(tmp_path: Path) -> None:
    data = read_data_set(described(tmp_path, HEAD))
    assert (data.name, data.classes, data.ignore) == ("roads", NAMES, IGNORE_LABEL)
    assert data.images == tmp_path / "JPEGImages"
    assert data.masks == tmp_path / "SegmentationClass"
    assert data.splits == tmp_path / "ImageSets" / "Segmentation"
    assert data.suffixes == ("jpg", "jpeg", "png")
    np.testing.assert_array_equal(data.palette, PALETTE)


def test_a_file_says_where_everything_is_and_its_colours(tmp_path: Path) -> None:
    text = HEAD + PLACES + 'suffixes = ["png", "JPG"]\n'
    data = read_data_set(described(tmp_path, "\N{BYTE ORDER MARK}" + text))
    assert (data.images, data.masks) == (tmp_path / "images", tmp_path / "labels")
    assert data.splits == tmp_path / "lists"
    assert data.ignore == IGNORE
    assert data.suffixes == ("png", "JPG")
    np.testing.assert_array_equal(data.palette[:4], COLORS)
    np.testing.assert_array_equal(data.palette[4:], PALETTE[4:])


def names(count: int) -> str:
    return "classes = " + json.dumps([f"c{i}" for i in range(count)]) + "\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "a"\n', r"dataset\.toml lacks 'classes'"),
        ('classes = ["a", "b"]\n', "lacks 'name'"),
        ("", "lacks 'name': it needs at least a name and classes"),
        ("name = roads\n", r"dataset\.toml is no readable TOML"),
        (HEAD + "ignored = 3\n", "unknown key 'ignored': known are name, classes, ignore"),
        (HEAD + "[classes.more]\n", "is no readable TOML"),
        (HEAD + "[more]\n", "unknown key 'more'"),
        ('name = "a"\nclasses = "road"\n', "classes is 'road': it must be a list of names"),
        ('name = "a"\nclasses = ["a", 2]\n', r"classes\[1\] is 2: it must be a text"),
        ('name = "a"\nclasses = ["a", "b,c"]\n', r"classes\[1\] is 'b,c'.*without commas"),
        ('name = "a"\nclasses = ["a", ""]\n', r"classes\[1\] is ''"),
        ('name = "a"\nclasses = ["a", " b"]\n', r"classes\[1\] is ' b'"),
        ('name = "a"\nclasses = ["a", "b\\nc"]\n', r"classes\[1\] is "),
        ('name = "a"\nclasses = ["a", "b", "a"]\n', "names 'a' twice: labels 0, 2"),
        ('name = "a"\nclasses = []\n', "classes has 0 names: 2 to 255"),
        ('name = "a"\nclasses = ["a"]\n', "classes has 1 names: 2 to 255"),
        ('name = "a"\n' + names(256), "classes has 256 names: 2 to 255 are possible"),
        ("name = 3\n" + names(2), "name is 3: it must be a text"),
        ('name = "VOC2012"\n' + names(2), "name 'VOC2012' is taken"),
        (HEAD + "ignore = 3\n", "ignore is 3, but that is the label of class 'sky': .* 4 to 255"),
        (HEAD + "ignore = 256\n", "ignore is 256: it must be a label from 0 to 255"),
        (HEAD + "ignore = true\n", "ignore is True: it must be a label"),
        (HEAD + 'ignore = "void"\n', "ignore is 'void': it must be a label"),
        (HEAD + "colors = [[1, 2, 3]]\n", "colors has 1: it must list 4"),
        (HEAD + "colors = 7\n", "colors is 7: it must list 4"),
        (HEAD + "colors = [[1, 2, 3], [1, 2], 3, 4]\n", r"colors\[1\] is \[1, 2\]: it must be"),
        (HEAD + "images = 3\n", "images is 3: it must be a folder, in quotes"),
        (HEAD + 'masks = ""\n', "masks is ''"),
        (HEAD + 'suffixes = ["tif"]\n', r"suffixes is \['tif'\]: it must list some of jpg"),
        (HEAD + "suffixes = []\n", "suffixes is"),
        (HEAD + 'suffixes = "png"\n', "suffixes is 'png'"),
    ],
)
def test_a_file_that_cannot_be_is_refused_in_one_line(
    text: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message) as error:
        read_data_set(described(tmp_path, text))
    assert "dataset.toml" in str(error.value)
    assert "\n" not in str(error.value)


def test_255_classes_are_possible_and_no_label_is_left_over(tmp_path: Path) -> None:
    data = read_data_set(described(tmp_path, 'name = "a"\n' + names(255)))
    assert len(data.classes) == data.ignore == 255
    with pytest.raises(ModelError, match="num_classes is 256: masks of 8 bits hold 255"):
        models.build(VARIANT, 256)


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "dataset.toml"
    path.write_bytes(b'name = "\xff"')
    with pytest.raises(DataError, match="is no readable TOML"):
        read_data_set(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_data_set(path)


# the data


def test_a_folder_without_the_file_is_voc(voc_root: Path) -> None:
    data = describe_data_set(voc_root)
    assert (data.name, data.classes, data.own) == ("VOC2012", CLASSES, False)
    np.testing.assert_array_equal(data.palette, PALETTE)


def test_samples_are_found_where_the_file_says(roads: Path) -> None:
    assert find_voc_root(roads) == roads  # it has no ImageSets
    samples = read_split(roads, "val")
    assert [s.name for s in samples] == ["val_0", "val_1", "val_2"]
    image, mask = read_sample(samples[0])
    assert image.shape == (48, 64, 3)
    assert set(np.unique(mask)) == {0, 1, 2, 3, IGNORE_LABEL}
    assert (mask[20] == IGNORE_LABEL).all()  # 9 in the file
    with pytest.raises(
        DataError, match=r"no split 'test' at .*lists/test\.txt: choose one of train"
    ):
        read_split(roads, "test")


def test_an_image_may_have_any_of_the_suffixes_but_one_only(roads: Path) -> None:
    image = roads / "images" / "val_1.png"
    Image.open(image).save(image.with_suffix(".jpeg"))
    with pytest.raises(DataError, match=r"val_1\.jpeg and .*val_1\.png have one name"):
        read_split(roads, "val")
    image.unlink()
    assert read_split(roads, "val")[1].image.suffix == ".jpeg"
    image.with_suffix(".jpeg").unlink()
    with pytest.raises(DataError, match=r"val_1\.jpg does not exist, but .*val\.txt lists 'val_1'"):
        read_split(roads, "val")


@pytest.mark.parametrize("label", [4, 255])
def test_a_mask_with_a_label_beyond_the_classes_is_refused(label: int, roads: Path) -> None:
    path = roads / "labels" / "val_0.png"
    labels = np.asarray(Image.open(path)).copy()
    labels[5, 5] = label
    Image.fromarray(labels).save(path)
    with pytest.raises(DataError, match=rf"has label {label}, beyond the 4 classes .*and 9 for"):
        read_sample(read_split(roads, "val")[0])


def test_read_mask_gives_its_ignored_label_the_one_that_is_used_inside(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 200]], dtype=np.uint8)
    Image.fromarray(labels).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png", 2, 200), [[0, 1, IGNORE_LABEL]])
