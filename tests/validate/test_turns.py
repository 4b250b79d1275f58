from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from deploy.calibration.voc import read_split
from deploy.runtimes.runner import Runner
from deploy.validate.evaluate import Seen, evaluate, evaluate_in_turns
from deploy.validate.protocol import Protocol
from deploy.validate.turns import TOGETHER_BYTES, KeptLogits, in_groups

SIZE = (32, 32)


class Noisy:
    """Logits that depend on the image and on a seed."""

    timed = None
    default = None

    def __init__(self, seed: int) -> None:
        self.mix = np.random.default_rng(seed).standard_normal((21, 3)).astype(np.float32)

    def __call__(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = np.einsum("kc,chw->khw", self.mix, image[0, :, ::4, ::4])
        return found


def test_small_networks_are_together_large_ones_alone() -> None:
    third = TOGETHER_BYTES // 3
    sizes = {"a": third, "b": third, "c": third, "d": third, "e": 9 * third, "f": 1}
    assert in_groups(sizes) == [["a", "b", "c"], ["d"], ["e"], ["f"]]


def test_kept_logits_are_the_same_whatever_their_shape() -> None:
    rng = np.random.default_rng(0)
    logits = [rng.standard_normal((2, n, 3)).astype(np.float32) for n in (4, 7)]
    with KeptLogits() as kept:
        for values in logits:
            kept.append(values)
        for number in (1, 0, 1):
            np.testing.assert_array_equal(kept[number], logits[number])


@pytest.mark.parametrize("protocol", [Protocol.CROP, Protocol.NATIVE, Protocol.PAD])
def test_one_at_a_time_gives_what_all_together_give(voc_root: Path, protocol: Protocol) -> None:
    samples = read_split(voc_root, "val")
    names = ["torch", "fp32", "int8"]
    networks = {name: Noisy(seed) for seed, name in enumerate(names)}
    alive: list[list[str]] = []
    seen: list[set[str]] = []

    def groups() -> Iterator[Mapping[str, Runner]]:
        for name in names:
            alive.append([name])
            yield {name: networks[name]}

    def watch(image: Seen) -> None:
        seen.append(set(image.labels))

    options = {"protocol": protocol, "size": SIZE, "baseline": "torch"}
    together = evaluate(networks, samples, **options)
    apart = evaluate_in_turns(groups(), [samples] * 3, watch=watch, **options)
    assert [r.to_json() | {"latency_ms": 0} for r in apart.values()] == [
        r.to_json() | {"latency_ms": 0} for r in together.values()
    ]
    assert together["int8"].agreement < 1
    assert seen == [{"torch"}] * 4 + [{"torch", "fp32"}] * 4 + [{"torch", "int8"}] * 4
