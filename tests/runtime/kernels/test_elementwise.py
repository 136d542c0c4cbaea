"""Elementwise kernels against the specification on Python integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.runtime import requant as spec
from tests.runtime.checked import run_one
from tests.runtime.programs import broadcast_strides

FEW = settings(max_examples=12, deadline=None)
codes = st.sampled_from([np.uint8, np.int16])
seeds = st.integers(0, 2**32 - 1)
ranges = st.sampled_from([(0, 255), (3, 250), (128, 255), (-128, 127)])


def draw(rng: np.random.Generator, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Random codes with the extreme ones among them."""
    info = np.iinfo(dtype)
    x = rng.integers(info.min, info.max + 1, shape).astype(dtype)
    x[rng.random(shape) < 0.1] = info.min
    x[rng.random(shape) < 0.1] = info.max
    return x


def random_zero(rng: np.random.Generator, dtype: Any) -> int:
    return int(rng.integers(0, 256)) if dtype is np.uint8 else 0


SHAPES = [
    ((7,), (7,)),
    ((2, 3, 5), (5,)),
    ((2, 1, 4), (3, 1)),
    ((1,), (4, 2)),
    ((2, 3, 1, 4), (2, 1, 3, 4)),
    ((3, 600), (3, 1)),
]


def reference_binary(kind: int, a: int, b: int, f: dict[str, int], out: spec.Range) -> int:
    a, b = a - f["a_zp"], b - f["b_zp"]
    if kind == 0:
        return out.code(spec.add(a, f["a_m"], b, f["b_m"], f["n"]))
    if kind == 1:
        return out.code(spec.requant(a * b, f["a_m"], f["n"]))
    if kind == 2:
        return spec.divide(a, b, f["a_m"], f["n"], out)
    chosen = (min if kind == 3 else max)(a * f["a_m"], b * f["b_m"])
    return out.code(spec.rounding_shift(chosen, f["n"]))


@pytest.mark.parametrize("kind", range(5))
@FEW
@given(a_type=codes, b_type=codes, shapes=st.sampled_from(SHAPES[:5]), seed=seeds, limits=ranges, n=st.integers(1, 40))
def test_binary(kind: int, a_type: Any, b_type: Any, shapes: Any, seed: int, limits: tuple[int, int], n: int) -> None:
    check_binary(kind, a_type, b_type, shapes, seed, limits, n)


def check_binary(kind: int, a_type: Any, b_type: Any, shapes: Any, seed: int, limits: tuple[int, int], n: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = draw(rng, a_type, shapes[0]), draw(rng, b_type, shapes[1])
    shape = np.broadcast_shapes(*shapes)
    y_type = np.uint8 if limits[0] >= 0 else np.int16
    f = {
        "a_zp": random_zero(rng, a_type),
        "b_zp": random_zero(rng, b_type),
        "a_m": int(rng.integers(-(2**31) + 1, 2**31)),
        "b_m": 1 if kind in (1, 2) else int(rng.integers(-(2**31) + 1, 2**31)),
        "n": n,
        "y_zp": int(rng.integers(0, 200)),
        "lo": limits[0],
        "hi": limits[1],
    }
    y = run_one(
        "binary",
        {"a": a, "b": b},
        {"y": (shape, y_type)},
        kind=kind,
        dims=list(shape),
        a_strides=broadcast_strides(shapes[0], shape),
        b_strides=broadcast_strides(shapes[1], shape),
        **f,
    )["y"]
    out = spec.Range(f["y_zp"], *limits)
    wide_a, wide_b = np.broadcast_arrays(a, b)
    expected = [
        reference_binary(kind, int(p), int(q), f, out) for p, q in zip(wide_a.ravel(), wide_b.ravel(), strict=True)
    ]
    assert y.ravel().tolist() == expected


@pytest.mark.parametrize("y_limits", [(0, 255), (7, 240), (-32768, 32767), (-77, 1000)])
@FEW
@given(a_type=codes, b_type=codes, count=st.integers(16, 150), seed=seeds, n=st.sampled_from([1, 30, 38, 40, 41]))
def test_dense_sums(y_limits: tuple[int, int], a_type: Any, b_type: Any, count: int, seed: int, n: int) -> None:
    check_binary(0, a_type, b_type, ((count,), (count,)), seed, y_limits, n)


BYTES = [((3, 1), (3, 1)), ((63,), (63,)), ((64,), (64,)), ((2, 130), (130,)), ((3, 24), (24,)), ((513,), (1,))]


@pytest.mark.parametrize("shapes", BYTES)
@FEW
@given(seed=seeds, n=st.sampled_from([1, 16, 30, 33, 38, 47, 60]), limits=ranges)
def test_products_of_bytes(shapes: Any, seed: int, n: int, limits: tuple[int, int]) -> None:
    check_binary(1, np.uint8, np.uint8, shapes, seed, limits, n)


@FEW
@given(count=st.integers(16, 70), seed=seeds, n=st.sampled_from([1, 30, 46, 60]))
def test_dense_products(count: int, seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    a, b, m = draw(rng, np.int16, (2, count)), draw(rng, np.int16, (count,)), int(rng.integers(-(2**30), 2**30))
    y = run_one(
        "binary",
        {"a": a, "b": b},
        {"y": (a.shape, np.int16)},
        kind=1,
        dims=[2, count],
        a_strides=[count, 1],
        b_strides=[0, 1],
        a_m=m,
        n=n,
        y_zp=0,
        lo=-30000,
        hi=32767,
    )["y"]
    out = spec.Range(0, -30000, 32767)
    assert y.tolist() == [
        [out.code(spec.requant(int(p) * int(q), m, n)) for p, q in zip(line, b, strict=True)] for line in a
    ]


@pytest.mark.parametrize("b_type", [np.uint8, np.int16])
def test_runs_of_sums(b_type: Any) -> None:
    check_binary(0, np.int16, b_type, ((3, 2, 70), (2, 70)), 5, (-32768, 32767), 38)


def test_binary_crosses_blocks() -> None:
    check_binary(0, np.uint8, np.int16, SHAPES[5], 3, (0, 255), 20)


def test_division_by_zero_saturates_in_the_direction_of_the_numerator() -> None:
    a, b = np.array([5, 3, 4], np.uint8), np.array([9, 9, 9], np.uint8)
    strides = {"dims": [3], "a_strides": [1], "b_strides": [1]}
    y = run_one(
        "binary",
        {"a": a, "b": b},
        {"y": ((3,), np.uint8)},
        kind=2,
        a_zp=4,
        b_zp=9,
        a_m=1,
        n=4,
        y_zp=7,
        lo=2,
        hi=200,
        **strides,
    )["y"]
    assert y.tolist() == [200, 2, 7]


def test_binary_on_plain_integers() -> None:
    a = np.array([1, -5, 2**40], np.int64)
    b = np.array([1], np.int64)
    y = run_one(
        "binary", {"a": a, "b": b}, {"y": ((3,), np.int64)}, kind=0, dims=[3], a_strides=[1], b_strides=[0], a_m=-1
    )["y"]
    assert y.tolist() == [0, 6, 1 - 2**40]


@FEW
@given(
    seed=seeds, n=st.integers(1, 40), dtype=st.sampled_from([np.uint8, np.int8, np.int16, np.int32]),
    shapes=st.sampled_from([((3, 1), (4,)), ((3, 4), (1,)), ((3, 515), (3, 1))]),
)  # fmt: skip
def test_where(seed: int, n: int, dtype: Any, shapes: Any) -> None:
    rng = np.random.default_rng(seed)
    shape = (2, *np.broadcast_shapes(*shapes))
    c, a, b = rng.random(shapes[0]) < 0.5, draw(rng, dtype, shape), draw(rng, np.uint8, shapes[1])
    a_m, b_m = (int(v) for v in rng.integers(-(2**31) + 1, 2**31, 2))
    y = run_one(
        "where",
        {"c": c, "a": a, "b": b},
        {"y": (shape, np.int16)},
        dims=list(shape),
        c_strides=broadcast_strides(shapes[0], shape),
        a_strides=broadcast_strides(shape, shape),
        b_strides=broadcast_strides(shapes[1], shape),
        a_zp=3,
        b_zp=9,
        a_m=a_m,
        b_m=b_m,
        n=n,
        y_zp=-4,
    )["y"]
    out = spec.Range(-4, -32768, 32767)
    chosen = np.where(c, (a.astype(object) - 3) * a_m, (b.astype(object) - 9) * b_m)
    assert (
        y.tolist() == np.vectorize(lambda v: out.code(spec.rounding_shift(int(v), n)), otypes=[object])(chosen).tolist()
    )


COMPARISONS = list(enumerate([np.less, np.less_equal, np.greater, np.greater_equal, np.equal]))


@pytest.mark.parametrize(("kind", "compare"), COMPARISONS)
def test_compare(kind: int, compare: Any) -> None:
    rng = np.random.default_rng(kind)
    a, b = draw(rng, np.uint8, (4, 5)), draw(rng, np.int16, (5,))
    a[0], b[:] = 10, [70, 69, 71, -32768, 32767]
    y = run_one(
        "compare",
        {"a": a, "b": b},
        {"y": ((4, 5), np.bool_)},
        kind=kind,
        dims=[4, 5],
        a_strides=[5, 1],
        b_strides=[0, 1],
        a_zp=3,
        b_zp=0,
        a_m=10,
        b_m=1,
    )["y"]
    np.testing.assert_array_equal(y, compare((a.astype(np.int64) - 3) * 10, b.astype(np.int64)))


WALKS = [((3, 5), (5,)), ((2, 65), (2, 1)), ((513,), (513,)), ((515,), (1,)), ((2, 1, 9), (3, 1))]
"""Shapes whose runs are shorter and longer than a vector and a block, with steps of one and of none."""


@pytest.mark.parametrize(("kind", "compare"), COMPARISONS)
@pytest.mark.parametrize("shapes", WALKS)
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.int32])
def test_comparisons_by_factors(kind: int, compare: Any, shapes: Any, dtype: Any) -> None:
    """Factors of 31 bits either way; some of the terms are equal."""
    rng, shape = np.random.default_rng(kind), np.broadcast_shapes(*shapes)
    a, b = draw(rng, dtype, shapes[0]), draw(rng, np.int16, shapes[1])
    a_m, b_m = 2**31 - 1, (2**31 - 1) * (-1 if kind % 2 else 1)
    a.flat[::3] = 7
    b.flat[::2] = 7
    strides = {"a_strides": broadcast_strides(shapes[0], shape), "b_strides": broadcast_strides(shapes[1], shape)}
    factors = {"a_zp": 7, "b_zp": 7, "a_m": a_m, "b_m": b_m}
    y = run_one(
        "compare", {"a": a, "b": b}, {"y": (shape, np.bool_)}, kind=kind, dims=list(shape), **strides, **factors
    )["y"]
    np.testing.assert_array_equal(y, compare((a.astype(np.int64) - 7) * a_m, (b.astype(np.int64) - 7) * b_m))


@pytest.mark.parametrize(
    ("kind", "combine"), list(enumerate([lambda a, b: ~a | b & a & ~a, np.logical_and, np.logical_or, np.logical_xor]))
)
@pytest.mark.parametrize("shapes", [((4,), (4,)), *WALKS, ((2, 4097), (4097,)), ((4099,), (1,))])
def test_logic(kind: int, combine: Any, shapes: Any) -> None:
    """Runs longer than the bytes of a block, too; what is not 0 is true."""
    rng, shape = np.random.default_rng(kind), np.broadcast_shapes(*shapes)
    a, b = (rng.random(each) < 0.5 for each in shapes)
    a.flat[:4], b.flat[:4] = [0, 0, 1, 1][: a.size], [0, 1, 0, 1][: b.size]
    b = (b * 254).astype(np.uint8).view(np.bool_)
    strides = {"a_strides": broadcast_strides(shapes[0], shape), "b_strides": broadcast_strides(shapes[1], shape)}
    y = run_one("logic", {"a": a, "b": b}, {"y": (shape, np.bool_)}, kind=kind, dims=list(shape), **strides)["y"]
    np.testing.assert_array_equal(y, combine(a, b != 0))


@pytest.mark.parametrize("x_type", [np.uint8, np.int16])
@pytest.mark.parametrize("y_type", [np.uint8, np.int16])
def test_table(x_type: Any, y_type: Any) -> None:
    rng = np.random.default_rng(1)
    info = np.iinfo(x_type)
    entries = draw(rng, y_type, (info.max - info.min + 1,))
    x = draw(rng, x_type, (150,))
    y = run_one("table", {"x": x}, {"y": ((150,), y_type)}, table=entries, count=150)["y"]
    np.testing.assert_array_equal(y, entries[x.astype(int) - info.min])


@FEW
@given(
    seed=seeds,
    n=st.integers(0, 62),
    x_type=st.sampled_from([np.uint8, np.int16, np.int32, np.int64, np.bool_]),
    limits=ranges,
)
def test_requant(seed: int, n: int, x_type: Any, limits: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    x = rng.random(40) < 0.5 if x_type is np.bool_ else draw(rng, x_type, (40,))
    m, zero = int(rng.integers(-(2**31) + 1, 2**31)), random_zero(rng, x_type)
    dtype = np.uint8 if limits[0] >= 0 else np.int16
    y = run_one(
        "requant", {"x": x}, {"y": ((40,), dtype)}, count=40, x_zp=zero, m=m, n=n, y_zp=5, lo=limits[0], hi=limits[1]
    )["y"]
    out = spec.Range(5, *limits)
    assert y.tolist() == [out.code(spec.requant(spec.clip32(int(v)) - zero, m, n)) for v in x]


@pytest.mark.parametrize("x_type", [np.uint8, np.int16])
@pytest.mark.parametrize("count", [5, 64, 100])
def test_requant_into_a_part_of_each_line(x_type: Any, count: int) -> None:
    x = draw(np.random.default_rng(count), x_type, (7, count))
    before = np.full((7, count + 9), 9, np.uint8)
    y = run_one(
        "requant",
        {"x": x, "y": before},
        {"y": (before.shape, np.uint8)},
        count=count,
        lines=7,
        y_pitch=count + 9,
        y_offset=4,
        x_zp=3,
        m=1 << 30,
        n=31,
        y_zp=7,
    )["y"]
    before[:, 4 : 4 + count] = [
        [spec.Range(7, 0, 255).code(spec.requant(int(v) - 3, 1 << 30, 31)) for v in line] for line in x
    ]
    assert y.tolist() == before.tolist()
