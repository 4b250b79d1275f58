from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest

from calibration.exact_sum import ExactSum

Terms = list[np.ndarray]  # type: ignore[type-arg]


def add(terms: Terms) -> ExactSum:
    result = ExactSum()
    for term in terms:
        result.add(term)
    return result


def same(one: ExactSum, other: ExactSum) -> bool:
    return one.high.tobytes() + one.low.tobytes() == other.high.tobytes() + other.low.tobytes()


@pytest.fixture
def terms() -> Terms:
    """Float32 terms over ten orders of magnitude, some of which cancel."""
    generator = np.random.default_rng(0)
    scales = (1, 1e5, 1e-5, 1e3, 1e-2)
    drawn = [(generator.normal(size=40) * s).astype(np.float32) for s in scales]
    return [*drawn, -drawn[1]]


def test_sum_is_exact(terms: Terms) -> None:
    found = add(terms)
    for i in range(40):
        exact = sum(Fraction(float(term[i])) for term in terms)
        assert Fraction(float(found.high[i])) + Fraction(float(found.low[i])) == exact
        assert float(found.high[i]) == float(exact)  # the nearest float64


def test_sum_does_not_depend_on_the_order(terms: Terms) -> None:
    expected = add(terms)
    assert all(same(add(list(order)), expected) for order in permutations(terms))


@pytest.mark.parametrize("division", range(7))
def test_merge_equals_one_sum(division: int, terms: Terms) -> None:
    first, second = add(terms[:division]), add(terms[division:])
    first.merge(second)
    assert same(first, add(terms))
