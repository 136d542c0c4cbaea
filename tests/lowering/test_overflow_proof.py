"""The proof of no overflow against brute force: it refuses exactly what some input can make overflow."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.errors import UnsupportedError
from qcompiler.graph.ir import Variable
from qcompiler.lowering.code_grid import Coded, CodeGrid
from qcompiler.lowering.factors import ACCUMULATOR_LIMIT
from qcompiler.lowering.overflow_proof import prove_accumulator, signed_sums


def codes(low: int, high: int, zero_point: int) -> Coded:
    return Coded(Variable("x"), CodeGrid(0.1, zero_point, np.dtype(np.int16)), low, high)


def worst_of_all(weights: np.ndarray, bias: np.ndarray, x: Coded) -> int:
    """Largest magnitude of an accumulator over all extreme inputs, each position also padded."""
    zero, worst = x.grid.zero_point, int(np.abs(bias).max())
    steps = {x.lo - zero, x.hi - zero, 0}
    for row, start in zip(weights.astype(object), bias.tolist(), strict=True):
        inputs = product(steps, repeat=len(row))
        sums = [sum(w * step for w, step in zip(row, chosen, strict=True)) for chosen in inputs]
        folded = start - zero * sum(row)  # the machine adds w * x to this
        worst = max(worst, abs(folded), *(abs(start + total) for total in sums))
    return worst


@settings(max_examples=150, deadline=None)
@given(
    weights=st.lists(st.lists(st.integers(-127, 127), min_size=3, max_size=3), min_size=1, max_size=3),
    low=st.integers(-32768, 0), high=st.integers(0, 32767), zero=st.integers(-32768, 32767),
    bias=st.integers(-(2**31) + 1, 2**31 - 1),
)  # fmt: skip
def test_it_refuses_exactly_what_can_overflow(
    weights: list[list[int]], low: int, high: int, zero: int, bias: int
) -> None:
    x, w, b = codes(low, high, zero), np.array(weights, np.int8), np.full(len(weights), bias, np.int64)
    if worst_of_all(w, b, x) >= ACCUMULATOR_LIMIT:
        with pytest.raises(UnsupportedError, match="beyond int32"):
            prove_accumulator(w, b, x)
    else:
        prove_accumulator(w, b, x)


def test_the_limit_itself_is_refused() -> None:
    x, weights = codes(0, 1, 0), np.array([[1]], np.int8)
    prove_accumulator(weights, np.array([2**31 - 2]), x)
    with pytest.raises(UnsupportedError, match=str(2**31)):
        prove_accumulator(weights, np.array([2**31 - 1]), x)


def test_sums_by_sign() -> None:
    weights = np.random.default_rng(0).integers(-127, 128, (5, 300)).astype(np.int8)
    positive, negative = signed_sums(weights)
    np.testing.assert_array_equal(positive, np.where(weights > 0, weights.astype(int), 0).sum(axis=1))
    np.testing.assert_array_equal(negative, np.where(weights < 0, weights.astype(int), 0).sum(axis=1))
