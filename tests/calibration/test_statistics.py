import copy
import json
import math
from itertools import permutations

import numpy as np
import pytest
from numpy.typing import NDArray

from deploy.calibration import CalibrationError, TensorStatistics
from deploy.calibration.statistics import BINS

Samples = NDArray[np.float32]


def collect(*images: Samples) -> TensorStatistics:
    """Return the statistics of a run over ``images``, all of whose values are samples."""
    statistics = TensorStatistics()
    for image in images:
        axes = (0, 2, 3) if image.ndim == 4 else None
        statistics.update(image.min(axis=axes), image.max(axis=axes), image)
    return statistics


def assert_equal(one: TensorStatistics, other: TensorStatistics) -> None:
    """Compare bit for bit."""
    assert (one.minimum, one.maximum, one.exponent) == (
        other.minimum,
        other.maximum,
        other.exponent,
    )
    assert np.array_equal(one.counts, other.counts)
    for a, b in (
        (one.channel_minimum, other.channel_minimum),
        (one.channel_maximum, other.channel_maximum),
    ):
        assert a.dtype == b.dtype == np.float32
        assert a.tobytes() == b.tobytes()


def reference_counts(values: Samples, exponent: int) -> NDArray[np.int64]:
    """Return the histogram as the class defines it, in double precision."""
    bins = np.floor(values.astype(np.float64).ravel() / 2.0**exponent).astype(int) + BINS
    return np.bincount(bins, minlength=2 * BINS)


@pytest.fixture
def images() -> list[Samples]:
    """Images whose magnitudes differ by six orders."""
    generator = np.random.default_rng(0)
    scales = (1.0, 1e-3, 40.0, 1e3, 0.2)
    return [(generator.normal(size=(1, 3, 9, 11)) * s).astype(np.float32) for s in scales]


def test_update_streamed_equals_the_full_batch(images: list[Samples]) -> None:
    batch = np.concatenate(images)
    streamed, whole = collect(*images), collect(batch)
    assert_equal(streamed, whole)
    assert streamed.minimum == batch.min()
    assert streamed.maximum == batch.max()
    assert np.array_equal(streamed.channel_minimum, batch.min(axis=(0, 2, 3)))
    assert np.array_equal(streamed.channel_maximum, batch.max(axis=(0, 2, 3)))
    assert np.array_equal(streamed.counts, reference_counts(batch, streamed.exponent))


def test_update_does_not_depend_on_the_order(images: list[Samples]) -> None:
    expected = collect(*images)
    for order in permutations(images):
        assert_equal(collect(*order), expected)


@pytest.mark.parametrize("division", range(6))
def test_merge_equals_one_run(division: int, images: list[Samples]) -> None:
    first, second = collect(*images[:division]), collect(*images[division:])
    untouched = copy.deepcopy(second)
    first.merge(second)
    assert_equal(first, collect(*images))
    assert_equal(second, untouched)


def test_merge_is_symmetric(images: list[Samples]) -> None:
    one, other = collect(*images[:2]), collect(*images[2:])
    reverse = copy.deepcopy(other)
    reverse.merge(one)
    one.merge(other)
    assert_equal(one, reverse)


def test_update_of_signed_zeros_does_not_depend_on_the_order() -> None:
    zeros = np.zeros((1, 2, 2, 2), dtype=np.float32)
    assert_equal(collect(zeros, -zeros), collect(-zeros, zeros))


def test_update_and_merge_of_other_channels_are_refused(images: list[Samples]) -> None:
    statistics = collect(*images)
    before = copy.deepcopy(statistics)
    with pytest.raises(CalibrationError, match="2 channels here and 3 elsewhere"):
        statistics.update([0, 0], [1, 1], np.float32([0]))
    with pytest.raises(CalibrationError, match="1 channels here and 3 elsewhere"):
        statistics.merge(collect(np.float32([1])))
    assert_equal(statistics, before)


@pytest.mark.parametrize("factor", [1.5, 2, 1000, 1e20])
def test_update_widens_and_keeps_every_sample(factor: float) -> None:
    small = np.random.default_rng(1).normal(size=1000).astype(np.float32)
    large = (small * factor).astype(np.float32)
    statistics = collect(small, large)
    assert statistics.counts.sum() == 2000
    magnitude = max(abs(statistics.minimum), abs(statistics.maximum))
    # all of it is inside, and at least half of the bins are within the largest magnitude
    assert statistics.bin_width * BINS / 2 <= magnitude < statistics.bin_width * BINS
    expected = reference_counts(np.concatenate([small, large]), statistics.exponent)
    assert np.array_equal(statistics.counts, expected)


def test_update_never_narrows() -> None:
    statistics = collect(np.float32([-8, 8]), np.float32([0.5]))
    assert_equal(statistics, collect(np.float32([0.5, -8, 8])))


def test_update_of_zeros_only() -> None:
    zeros = np.zeros((1, 2, 4, 4), dtype=np.float32)
    statistics = collect(zeros, zeros)
    assert (statistics.minimum, statistics.maximum) == (0, 0)
    assert statistics.counts[BINS] == statistics.counts.sum() == 64


def test_update_of_negative_values_only() -> None:
    values = -np.random.default_rng(2).uniform(1, 3, 500).astype(np.float32)
    statistics = collect(values)
    assert (statistics.minimum, statistics.maximum) == (values.min(), values.max())
    assert statistics.maximum < 0
    assert statistics.counts[:BINS].sum() == 500
    assert not statistics.counts[BINS:].any()


@pytest.mark.parametrize("value", [-4.0, -1.0, 1.0, 4.0, 3.4e38, -3.4e38, 1e-44])
def test_update_of_one_value_puts_it_in_its_bin(value: float) -> None:
    statistics = collect(np.float32([value]))
    (index,) = np.flatnonzero(statistics.counts)
    edges = statistics.edges
    assert edges[index] <= np.float32(value) < edges[index + 1]


def test_update_counts_an_exact_edge_with_the_bin_above() -> None:
    statistics = collect(np.float32([-1.0, -0.5, 0.0, 0.5, 1.0]))
    assert statistics.bin_width == 2 / BINS
    used = np.flatnonzero(statistics.counts) - BINS
    assert used.tolist() == [-BINS // 2, -BINS // 4, 0, BINS // 4, BINS // 2]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", ["minimum", "maximum", "samples"])
def test_update_of_a_value_that_is_not_finite(bad: float, place: str) -> None:
    statistics = collect(np.float32([-1, 1]))
    before = copy.deepcopy(statistics)
    update = {"minimum": -1.0, "maximum": 2.0, "samples": np.float32([0, 1])}
    update[place] = np.float32([0, bad]) if place == "samples" else bad
    with pytest.raises(CalibrationError, match=r"its range is .* to|NaN or infinite"):
        statistics.update(**update)
    assert_equal(statistics, before)


def test_json_round_trip_is_exact(images: list[Samples]) -> None:
    for statistics in (
        collect(*images),
        collect(np.zeros(3, np.float32)),
        collect(-(images[1] ** 2)),
    ):
        text = json.dumps(statistics.to_json())
        assert_equal(TensorStatistics.from_json(json.loads(text)), statistics)


def test_json_leaves_out_the_empty_bins() -> None:
    content = collect(np.float32([1.0, 1.0, 1.5])).to_json()
    assert content["first_bin"] == BINS // 2
    assert len(content["counts"]) == BINS // 4 + 1
    assert (content["counts"][0], content["counts"][-1]) == (2, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"first_bin": -BINS - 1},
        {"first_bin": BINS},
        {"counts": [-1]},
        {"counts": [[1, 2]]},
        {"counts": ["x"]},
        {"channel_min": [2.0], "channel_max": [1.0]},
        {"channel_min": [math.nan]},
        {"channel_max": [math.inf]},
        {"channel_max": [None]},
        {"channel_max": None},
        {"channel_max": [1e9]},
        {"channel_min": [-1.0, -1.0]},
        {"channel_min": [], "channel_max": []},
        {"channel_min": [[-1.0]], "channel_max": [[1.0]]},
        {"channel_max": ["x"]},
        {"bin_exponent": 5000},
        {"bin_exponent": math.inf},
    ],
    ids=str,
)
def test_from_json_refuses_what_it_did_not_write(change: dict[str, object]) -> None:
    content = {**collect(np.float32([-1, 1])).to_json(), **change}
    with pytest.raises((KeyError, TypeError, ValueError, OverflowError)):
        TensorStatistics.from_json(content)
