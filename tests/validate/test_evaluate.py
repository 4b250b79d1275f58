import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from deploy.calibration.preprocess import Fit, fit_mask
from deploy.calibration.voc import read_sample, read_split
from deploy.errors import GraphError
from deploy.validate.evaluate import Seen, evaluate
from deploy.validate.metrics import ConfusionMatrix, Estimate
from deploy.validate.protocol import Protocol
from deploy.validate.scores import Result

SIZE = (32, 32)


class Oracle:
    """Gives, for each image in turn, the logits that a test wants."""

    def __init__(self, logits: list[NDArray[np.float32]]) -> None:
        self.timed = None
        self.logits = [*logits, logits[-1]]  # one more, where a single image is timed
        self.seen: list[tuple[int, ...]] = []

    def __call__(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        self.seen.append(image.shape)
        return self.logits.pop(0)


def one_hot(labels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return (np.arange(21)[:, None, None] == np.where(labels == 255, 0, labels)).astype(np.float32)


def test_evaluate_perfect_logits_score_one(voc_root: Path) -> None:
    samples = read_split(voc_root, "val")
    truth = [fit_mask(read_sample(s)[1], Fit.SQUASH, SIZE) for s in samples]
    result = evaluate(
        {"a": Oracle([one_hot(t) for t in truth])},
        samples,
        protocol=Protocol.SQUASH,
        size=SIZE,
        baseline="a",
    )["a"]
    assert result.miou == 1
    assert result.pixel_accuracy == 1
    assert result.agreement == 1
    assert result.sqnr_db == math.inf
    assert result.cosine == 1
    assert result.miou_drop is None  # of the baseline itself
    assert result.to_json()["sqnr_db"] is None


def test_evaluate_drop_and_its_interval_are_of_the_images(voc_root: Path) -> None:
    samples = read_split(voc_root, "val")
    truth = [fit_mask(read_sample(s)[1], Fit.SQUASH, SIZE) for s in samples]
    halves = [np.where(np.arange(32) < 16, t, 0).astype(np.uint8) for t in truth]
    results = evaluate(
        {
            "torch": Oracle([one_hot(t) for t in truth]),
            "half": Oracle([one_hot(h) for h in halves]),
        },
        samples,
        protocol=Protocol.SQUASH,
        size=SIZE,
        baseline="torch",
    )
    half = results["half"]
    assert half.miou_drop is not None
    assert half.miou_ratio is not None
    assert half.miou_drop.value == pytest.approx(1 - half.miou)
    assert half.miou_ratio.value == pytest.approx(half.miou)  # torch's is 1, on every resample
    assert 0 < half.miou_drop.low < half.miou_drop.value < half.miou_drop.high < 1
    assert half.miou_drop.low == pytest.approx(1 - half.miou_ratio.high)
    assert results["torch"].to_json()["miou_drop"] is None
    assert half.to_json()["miou_drop"]["low"] == half.miou_drop.low


@pytest.mark.parametrize("protocol", list(Protocol))
def test_evaluate_constant_prediction_is_scored_in_the_protocols_frame(
    voc_root: Path, protocol: Protocol
) -> None:
    samples = read_split(voc_root, "val")
    background = np.zeros((21, 8, 8), dtype=np.float32)
    background[0] = 1
    run = Oracle([background] * len(samples))
    result = evaluate({"a": run}, samples, protocol=protocol, size=SIZE, baseline=None)["a"]
    assert set(run.seen) == {(1, 3, *SIZE)}
    assert result.per_class_iou["background"] == pytest.approx(result.pixel_accuracy)
    assert math.isnan(result.agreement)
    if protocol is Protocol.NATIVE:  # every pixel of the masks counts, at their own size
        matrix = ConfusionMatrix(21)
        for sample in samples:
            mask = read_sample(sample)[1]
            matrix.update(mask, np.zeros_like(mask))
        assert result.pixel_accuracy == matrix.pixel_accuracy()


def test_evaluate_pad_leaves_the_padding_out_of_agreement(voc_root: Path) -> None:
    samples = read_split(voc_root, "val")[:1]  # 36x48, so 24x32 of the input
    left = np.zeros((21, 32, 32), dtype=np.float32)
    right = left.copy()
    right[1, 24:] = 1  # differs in the padding only
    result = evaluate(
        {"torch": Oracle([left]), "other": Oracle([right])},
        samples,
        protocol=Protocol.PAD,
        size=SIZE,
        baseline="torch",
    )
    assert result["other"].agreement == 1


@pytest.mark.parametrize("protocol", list(Protocol))
def test_evaluate_shows_each_image_as_it_is_compared(voc_root: Path, protocol: Protocol) -> None:
    samples = read_split(voc_root, "val")
    background = np.zeros((21, 8, 8), dtype=np.float32)
    background[0] = 1
    cat = np.roll(background, 8, axis=0)
    shown: list[Seen] = []
    results = evaluate(
        {"a": Oracle([background] * len(samples)), "b": Oracle([cat] * len(samples))},
        samples,
        protocol=protocol,
        size=SIZE,
        baseline="a",
        watch=shown.append,
    )
    assert [seen.name for seen in shown] == [sample.name for sample in samples]
    right = counted = 0
    for seen, sample in zip(shown, samples, strict=True):
        frames = {seen.truth.shape, *(labels.shape for labels in seen.labels.values())}
        assert frames == {seen.picture.shape[:2]}
        assert (seen.labels["a"] == 0).all()
        assert (seen.labels["b"] == 8).all()
        if protocol is Protocol.NATIVE:
            assert (seen.truth == read_sample(sample)[1]).all()
        right += int((seen.truth == 0).sum())
        counted += int((seen.truth != 255).sum())
    assert results["a"].pixel_accuracy == pytest.approx(right / counted)


def test_evaluate_other_number_of_classes_is_refused(voc_root: Path) -> None:
    run = Oracle([np.zeros((19, 8, 8), dtype=np.float32)])
    with pytest.raises(GraphError, match="19 logits a pixel, but there are 21 classes"):
        evaluate(
            {"a": run},
            read_split(voc_root, "val"),
            protocol=Protocol.CROP,
            size=SIZE,
            baseline=None,
        )


def test_evaluate_times_the_graph_itself_where_logits_are_emulated(voc_root: Path) -> None:
    samples = read_split(voc_root, "val")
    zeros = [np.zeros((21, 8, 8), dtype=np.float32)] * len(samples)
    emulated, plain = Oracle(zeros), Oracle(zeros)
    emulated.timed = plain  # type: ignore[assignment]
    evaluate({"a": emulated}, samples, protocol=Protocol.CROP, size=SIZE, baseline=None)
    assert len(plain.seen) == len(samples)


@pytest.mark.parametrize(("images", "runs"), [(1, 2), (2, 2), (4, 4)])
def test_the_first_image_warms_the_networks_up(voc_root: Path, images: int, runs: int) -> None:
    run = Oracle([np.zeros((21, 8, 8), dtype=np.float32)] * images)
    samples = read_split(voc_root, "val")[:images]
    result = evaluate({"a": run}, samples, protocol=Protocol.CROP, size=SIZE, baseline=None)["a"]
    assert len(run.seen) == runs
    assert result.latency_ms > 0


def test_result_to_json_has_null_for_what_has_no_meaning() -> None:
    result = Result(
        miou=0.5,
        miou_drop=Estimate(value=0.1, low=math.nan, high=math.nan),
        miou_ratio=Estimate(value=math.nan, low=math.nan, high=math.nan),
        per_class_iou={"background": 0.5, "cat": math.nan},
        pixel_accuracy=0.5,
        agreement=math.nan,
        sqnr_db=math.nan,
        cosine=math.nan,
        latency_ms=1.0,
    )
    content = result.to_json()
    assert content["per_class_iou"] == {"background": 0.5, "cat": None}
    assert content["agreement"] is None
    assert content["cosine"] is None
    assert content["miou_drop"] == {"value": 0.1, "low": None, "high": None}
    assert content["miou_ratio"] is None
