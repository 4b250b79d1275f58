import hashlib
import json
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.calibration import (
    Calibration,
    CalibrationError,
    CalibrationImage,
    CalibrationKey,
    Fit,
    TensorStatistics,
    merge_calibrations,
    read_calibration,
    read_split,
)
from deploy.calibration.record import FORMAT, file_sha256, identify


def collect(seed: int) -> TensorStatistics:
    statistics = TensorStatistics()
    samples = np.random.default_rng(seed).normal(size=200).astype(np.float32)
    statistics.update(float(samples.min()), float(samples.max()), samples)
    return statistics


@pytest.fixture
def calibration() -> Calibration:
    images = tuple(CalibrationImage(name=f"train_{i}", sha256=f"{i:064x}") for i in range(3))
    key = CalibrationKey(
        graph_sha256="ab" * 32, fit=Fit.PAD, images=images, samples_per_tensor=16_384
    )
    return Calibration(key=key, tensors={"image": collect(0), 'odd "name"/é': collect(1)})


@pytest.fixture
def path(calibration: Calibration, tmp_path: Path) -> Path:
    written = tmp_path / "calibration.json"
    written.write_text(calibration.to_json(), encoding="utf-8")
    return written


def test_calibration_round_trip(calibration: Calibration, path: Path) -> None:
    found = read_calibration(path)
    assert found.key == calibration.key
    assert isinstance(found.key.fit, Fit)
    assert list(found.tensors) == list(calibration.tensors)
    for name, statistics in calibration.tensors.items():
        assert found.tensors[name].to_json() == statistics.to_json()
        assert np.array_equal(found.tensors[name].counts, statistics.counts)
    assert found.to_json() == calibration.to_json()


def test_calibration_without_tensors_round_trips(calibration: Calibration, tmp_path: Path) -> None:
    empty = Calibration(key=calibration.key, tensors={})
    (tmp_path / "empty.json").write_text(empty.to_json(), encoding="utf-8")
    assert read_calibration(tmp_path / "empty.json").tensors == {}


def test_calibration_file_has_the_key_first_and_a_line_for_each_tensor(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    content = json.loads(text)
    assert list(content) == [
        "format",
        "graph_sha256",
        "fit",
        "images",
        "samples_per_tensor",
        "tensors",
    ]
    assert content["format"] == FORMAT
    assert content["fit"] == "pad"
    assert content["images"][1] == {"name": "train_1", "sha256": f"{1:064x}"}
    assert list(content["tensors"]["image"]) == [
        "channel_min",
        "channel_max",
        "bin_exponent",
        "first_bin",
        "counts",
    ]
    assert sum(line.startswith("  ") and "counts" in line for line in text.splitlines()) == 2
    assert text.endswith("}\n")


@pytest.mark.parametrize(
    "change",
    [
        {"graph_sha256": "cd" * 32},
        {"fit": Fit.CROP},
        {"images": ()},
        {"images": (CalibrationImage(name="train_0", sha256="f" * 64),)},
        {"samples_per_tensor": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_calibration_key_differs_with_anything_it_holds(
    change: dict[str, Any], calibration: Calibration
) -> None:
    key = calibration.key
    fields = {name: getattr(key, name) for name in key.__dataclass_fields__}
    assert CalibrationKey(**fields) == key
    assert CalibrationKey(**{**fields, **change}) != key


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"3",
        b"{}",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b"\x80PK not text",
    ],
    ids=["empty", "torn", "list", "null", "number", "no_keys", "no_text", "deep", "binary"],
)
def test_read_calibration_of_no_calibration_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "corrupt.json"
    path.write_bytes(content)
    with pytest.raises(CalibrationError, match=r"corrupt\.json is no readable .*: delete it"):
        read_calibration(path)


@pytest.mark.parametrize("kept", [0.05, 0.5, 0.99])
def test_read_calibration_of_a_truncated_file(kept: float, path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(CalibrationError, match=r"calibration\.json is no readable"):
        read_calibration(path)


@pytest.mark.parametrize(
    "change",
    [
        {"fit": "stretch"},
        {"images": 3},
        {"images": [{"name": "train_0"}]},
        {"images": ["train_0"]},
        {"tensors": []},
        {"tensors": {"image": None}},
        {"tensors": {"image": {"channel_min": [0], "channel_max": [1]}}},
        {
            "tensors": {
                "image": {
                    "channel_min": [0],
                    "channel_max": [1],
                    "bin_exponent": -11,
                    "first_bin": 1e999,
                    "counts": [],
                }
            }
        },
    ],
    ids=str,
)
def test_read_calibration_with_a_wrong_entry(change: dict[str, Any], path: Path) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **change}), encoding="utf-8")
    with pytest.raises(CalibrationError, match=r"calibration\.json is no readable"):
        read_calibration(path)


@pytest.mark.parametrize("key", ["graph_sha256", "fit", "images", "samples_per_tensor", "tensors"])
def test_read_calibration_with_a_missing_entry(key: str, path: Path) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    del content[key]
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CalibrationError, match=rf"calibration\.json is no .*KeyError: '{key}'"):
        read_calibration(path)


def test_read_calibration_of_another_format(path: Path) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, "format": FORMAT + 1}), encoding="utf-8")
    with pytest.raises(CalibrationError, match=rf"json has format {FORMAT + 1}, not {FORMAT}"):
        read_calibration(path)


def test_read_calibration_of_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"absent\.json is no readable"):
        read_calibration(tmp_path / "absent.json")


def part(images: list[str], seed: int, **key: Any) -> Calibration:
    """Return the calibration of some images, whose hashes are their names."""
    entries = tuple(CalibrationImage(name=name, sha256=name) for name in images)
    settings = {"graph_sha256": "ab" * 32, "fit": Fit.PAD, "samples_per_tensor": 16_384, **key}
    return Calibration(
        key=CalibrationKey(images=entries, **settings),
        tensors={"image": collect(seed), "logits": collect(seed + 100)},
    )


def test_merge_calibrations_in_any_order_gives_the_same_bytes() -> None:
    parts = [("a.json", part(["3", "5"], 0)), ("b.json", part(["1"], 1)), ("c", part(["4"], 2))]
    before = [calibration.to_json() for _, calibration in parts]
    merged = merge_calibrations(parts)
    assert [image.name for image in merged.key.images] == ["1", "3", "4", "5"]
    assert merged.tensors["image"].counts.sum() == 600
    for order in permutations(parts):
        assert merge_calibrations(order).to_json() == merged.to_json()
    assert [calibration.to_json() for _, calibration in parts] == before


def test_merge_calibrations_of_one_part_is_that_part() -> None:
    assert merge_calibrations([("a", part(["1"], 0))]).to_json() == part(["1"], 0).to_json()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (part(["2"], 1, graph_sha256="cd"), "b.json has graph_sha256 cd, but a.json has abab"),
        (part(["2"], 1, fit=Fit.CROP), "b.json has fit crop, but a.json has pad"),
        (part(["2"], 1, samples_per_tensor=9), "b.json has samples_per_tensor 9, but a.json has"),
        (part(["2", "1"], 1), "image 1 is in b.json and in a.json: it would count twice"),
        (
            Calibration(key=part(["2"], 1).key, tensors={"image": collect(0)}),
            "b.json has other tensors than a.json",
        ),
    ],
)
def test_merge_calibrations_that_do_not_belong_together_is_refused(
    other: Calibration, message: str
) -> None:
    with pytest.raises(CalibrationError, match=message):
        merge_calibrations([("a.json", part(["1"], 0)), ("b.json", other)])


def test_identify_hashes_the_image_files(voc_root: Path) -> None:
    samples = read_split(voc_root, "val")
    images = identify(samples)
    assert [image.name for image in images] == ["val_0", "val_1", "val_2", "val_3"]
    for image, sample in zip(images, samples, strict=True):
        assert image.sha256 == hashlib.sha256(sample.image.read_bytes()).hexdigest()
    assert len({image.sha256 for image in images}) == 4


def test_identify_sees_a_changed_image_under_the_same_name(voc_root: Path) -> None:
    samples = read_split(voc_root, "val")
    before = identify(samples)
    samples[2].image.write_bytes(samples[2].image.read_bytes() + b"\0")
    after = identify(samples)
    assert [one == other for one, other in zip(before, after, strict=True)] == [
        True,
        True,
        False,
        True,
    ]


def test_file_sha256_of_known_bytes(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_sha256(tmp_path / "abc") == known
