"""Reductions against NumPy and the specification on Python integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.runtime import requant as spec
from qcompiler.runtime.errors import ProgramError
from qcompiler.runtime.session import Session
from tests.runtime.checked import build_one, run_one
from tests.runtime.kernels.test_product import draw, output, zero_point

FEW = settings(max_examples=12, deadline=None)
codes = st.sampled_from([np.uint8, np.int16])
seeds = st.integers(0, 2**32 - 1)
ELEMENTS = [np.uint8, np.int8, np.int16, np.int32, np.int64, np.bool_]
SHAPES = [(2, 5, 3), (1, 1, 1), (3, 17, 1), (1, 513, 1), (2, 3, 9), (1, 2, 515)]
"""[outer, k, inner], on both sides of a block and of the columns that are read together."""


def values(dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.random(shape) < 0.5 if dtype is np.bool_ else draw(rng, dtype, shape)


@FEW
@given(
    dtype=codes, outer=st.integers(1, 3), k=st.integers(1, 9), inner=st.integers(1, 5), seed=seeds, divide=st.booleans()
)
def test_sum_and_mean(dtype: Any, outer: int, k: int, inner: int, seed: int, divide: bool) -> None:
    rng = np.random.default_rng(seed)
    x, zero, (y_type, out) = draw(rng, dtype, (outer, k, inner)), zero_point(rng, dtype), output(rng)
    m, n = int(rng.integers(-(2**31) + 1, 2**31)), int(rng.integers(28, 36))
    y = run_one(
        "reduce",
        {"x": x},
        {"y": ((outer, inner), y_type)},
        kind=1,
        outer=outer,
        k=k,
        inner=inner,
        x_zp=zero,
        m=m,
        n=n,
        divide=int(divide),
        y_zp=out.zero_point,
        lo=out.lo,
        hi=out.hi,
    )["y"]
    totals = (x.astype(np.int64) - zero).sum(axis=1)
    code = (lambda s: spec.mean_code(s, k, m, n, out)) if divide else (lambda s: out.code(spec.requant(s, m, n)))
    assert y.tolist() == [[code(int(s)) for s in row] for row in totals]


@pytest.mark.parametrize("dtype", ELEMENTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_sums_of_all_elements(dtype: Any, shape: tuple[int, int, int]) -> None:
    x = values(dtype, shape) >> (8 if dtype is np.int64 else 0)
    outer, k, inner = shape
    y = run_one("reduce", {"x": x}, {"y": ((outer, inner), np.int64)}, kind=0, outer=outer, k=k, inner=inner, x_zp=3)
    np.testing.assert_array_equal(y["y"], x.astype(np.int64).sum(axis=1) - 3 * k)


@pytest.mark.parametrize(("kind", "largest"), [(2, np.max), (3, np.min)])
@pytest.mark.parametrize("dtype", ELEMENTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_max_and_min(kind: int, largest: Any, dtype: Any, shape: tuple[int, int, int]) -> None:
    x, (outer, k, inner) = values(dtype, shape), shape
    y = run_one("reduce", {"x": x}, {"y": ((outer, inner), dtype)}, kind=kind, outer=outer, k=k, inner=inner)["y"]
    np.testing.assert_array_equal(y, largest(x, axis=1))


@pytest.mark.parametrize("kind", [2, 3])
@pytest.mark.parametrize("value", [-(2**63), 2**63 - 1])
def test_extremes_that_are_all_there_is(kind: int, value: int) -> None:
    x = np.full((1, 4, 1), value)
    y = run_one("reduce", {"x": x}, {"y": ((1, 1), np.int64)}, kind=kind, outer=1, k=4, inner=1)["y"]
    assert y.tolist() == [[value]]


@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("dtype", ELEMENTS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("few", [True, False])
def test_argmax(last: int, dtype: Any, shape: tuple[int, int, int], few: bool) -> None:
    """Of few different elements many are equal."""
    x, (outer, k, inner) = values(dtype, shape), shape
    if few:
        x = np.where(x == x.max(), x.max(), x.min())
    y = run_one("argmax", {"x": x}, {"y": ((outer, inner), np.int64)}, outer=outer, k=k, inner=inner, select_last=last)
    expected = k - 1 - x[:, ::-1].argmax(axis=1) if last else x.argmax(axis=1)
    np.testing.assert_array_equal(y["y"], expected)


@given(
    seed=seeds, dtype=st.sampled_from([np.uint8, np.int16, np.int32, np.int64, np.bool_]), smallest=st.booleans(),
    k=st.integers(1, 40), data=st.data(),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_topk(seed: int, dtype: Any, smallest: bool, k: int, data: Any) -> None:
    rng, count = np.random.default_rng(seed), data.draw(st.integers(0, k))
    info = None if dtype is np.bool_ else np.iinfo(dtype)
    few = np.array([0, 1] if info is None else [info.min, info.max, 0, 1, 7], dtype)
    x = rng.choice(few, (2, k, 3)) if rng.random() < 0.5 or info is None else draw(rng, dtype, (2, k, 3))
    fields = {"outer": 2, "k": k, "inner": 3, "count": count, "smallest": int(smallest)}
    y = run_one("topk", {"x": x}, {"y": ((2, count, 3), np.int64)}, **fields)["y"]
    rank = np.unique(x, return_inverse=True)[1].reshape(x.shape)  # negated without overflow
    order = np.argsort(rank if smallest else -rank, axis=1, kind="stable")[:, :count]
    np.testing.assert_array_equal(y, order)


def test_topk_of_more_than_there_are_is_refused() -> None:
    x = np.zeros((1, 3, 1), np.uint8)
    program, _ = build_one("topk", {"x": x}, {"y": ((1, 4, 1), np.int64)}, outer=1, k=3, count=4)
    with pytest.raises(ProgramError, match="4 of 3 elements are wanted"):
        Session(program)
