import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from deploy.calibration import DataSet, describe_data_set
from deploy.calibration.voc import PALETTE
from deploy.validate.evaluate import Seen
from deploy.validate.examples import BETTER, DIFFERENCES, OTHER, SIDE, WORSE, Examples, WorstImages

TRUTH = np.array([[0, 0, 0, 255], [15, 15, 15, 15]], dtype=np.uint8).repeat(4, 0).repeat(4, 1)


def seen(name: str, torch: NDArray[np.uint8], int8: NDArray[np.uint8]) -> Seen:
    picture = np.full((*TRUTH.shape, 3), 128, dtype=np.uint8)
    return Seen(name=name, picture=picture, truth=TRUTH, labels={"torch": torch, "int8": int8})


def differing(name: str, pixels: int) -> Seen:
    """Return an image on whose first ``pixels`` INT8 errs and torch does not."""
    int8 = TRUTH.copy().ravel()
    int8[:pixels] = 8
    return seen(name, TRUTH, int8.reshape(TRUTH.shape))


def watched(
    images: Iterator[Seen] | list[Seen], count: int = 2, data: DataSet | None = None
) -> Examples:
    data = data or describe_data_set(Path("VOC2012"))
    worst = WorstImages("torch", "int8", data, count)
    for image in images:
        worst(image)
    return worst.examples()


def decoded(examples: Examples, file: str) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(examples.pictures[file])) as picture:
        return np.asarray(picture.convert("RGB"))


def test_the_worst_images_are_kept_in_order_whatever_the_order_they_came_in() -> None:
    counts = {"a": 3, "b": 40, "c": 12, "d": 128}
    for order in ("abcd", "dcba", "bdac"):
        record = watched([differing(name, counts[name]) for name in order]).record
        assert [image["name"] for image in record["images"]] == ["d", "b"]
        shares = [image["disagreement"] for image in record["images"]]
        assert shares == [128 / TRUTH.size, 40 / TRUTH.size]


def test_of_equal_images_the_earlier_ones_are_kept() -> None:
    record = watched(differing(name, 5) for name in "abc").record
    assert [image["name"] for image in record["images"]] == ["a", "b"]


def test_fewer_images_than_are_kept_are_all_there() -> None:
    assert len(watched([differing("a", 0)], count=4).record["images"]) == 1


def test_pictures_have_vocs_colours_and_a_legend_of_what_they_show() -> None:
    examples = watched([differing("a", 16)])
    assert examples.record["legend"] == [
        {"name": "background", "color": "#000000"},
        {"name": "cat", "color": "#400000"},
        {"name": "person", "color": "#c08080"},
        {"name": "ignored", "color": "#e0e0c0"},
    ]
    assert (decoded(examples, "1-truth.png") == PALETTE[TRUTH]).all()
    int8 = decoded(examples, "1-int8.png")
    assert (int8[0, 0] == PALETTE[8]).all()
    assert (int8[-1] == PALETTE[15]).all()


def test_pictures_of_ones_own_data_have_its_names_and_colours() -> None:
    voc = describe_data_set(Path("VOC2012"))
    names = [*voc.classes[:15], "pedestrian", *voc.classes[16:]]
    colors = [(0, 0, 0)] * 15 + [(1, 2, 3)] + [(0, 0, 0)] * 5
    data = replace(voc, classes=tuple(names), colors=tuple(colors))
    examples = watched([differing("a", 0)], data=data)
    assert {"name": "pedestrian", "color": "#010203"} in examples.record["legend"]
    assert (decoded(examples, "1-torch.png")[-1] == (1, 2, 3)).all()


def test_difference_says_which_of_the_two_is_right() -> None:
    torch, int8 = TRUTH.copy(), TRUTH.copy()
    int8[0, 0] = 3  # torch is right
    torch[7, 0] = 3  # INT8 is
    torch[7, 9], int8[7, 9] = 3, 4  # neither
    torch[0, 15], int8[0, 15] = 7, 3  # where the ground truth is ignored
    picture = decoded(watched([seen("a", torch, int8)]), "1-difference.png")
    colors = [tuple(picture[at].tolist()) for at in ((0, 0), (7, 0), (7, 9), (0, 15))]
    assert colors == [DIFFERENCES[kind] for kind in (WORSE, BETTER, OTHER, OTHER)]
    assert np.ptp(picture[3, 3]) == 0  # grey where they agree


@pytest.mark.parametrize("shape", [(500, 375), (64, 500), (20, 30), (600, 1)])
def test_pictures_are_small_and_keep_their_proportions(shape: tuple[int, int]) -> None:
    labels = np.zeros(shape, dtype=np.uint8)
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    image = Seen(name="a", picture=picture, truth=labels, labels={"torch": labels, "int8": labels})
    examples = watched([image])
    sizes = {decoded(examples, file).shape for file in examples.pictures}
    scale = min(1, SIDE / max(shape))
    assert sizes == {(*(max(1, round(side * scale)) for side in shape), 3)}
    assert sum(map(len, examples.pictures.values())) < 200_000
