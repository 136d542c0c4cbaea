"""Copies, fills, gathers and linear resizing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.runtime import requant as spec
from qcompiler.runtime.errors import FeedError, ProgramError
from qcompiler.runtime.program.expressions import contiguous
from qcompiler.runtime.session import Session
from tests.runtime.checked import build_one, run_interpreted, run_one
from tests.runtime.kernels.test_product import draw

ELEMENTS = [np.uint8, np.int16, np.int32, np.int64, np.bool_]


def values(dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.random(shape) < 0.5 if dtype is np.bool_ else draw(rng, dtype, shape)


@pytest.mark.parametrize("dtype", ELEMENTS)
@settings(max_examples=8, deadline=None)
@given(perm=st.permutations(range(4)))
def test_transpose(dtype: Any, perm: list[int]) -> None:
    x = values(dtype, (2, 3, 4, 5))
    strides = contiguous(x.shape)
    expected = x.transpose(perm)
    y = run_one(
        "move",
        {"x": x},
        {"y": (expected.shape, dtype)},
        dims=list(expected.shape),
        x_strides=[strides[p] for p in perm],
        y_strides=contiguous(expected.shape),
    )["y"]
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("dtype", ELEMENTS)
@pytest.mark.parametrize("shape", [(3, 4), (4, 4), (8, 7), (16, 16), (17, 9), (5, 70), (67, 33)])
def test_transposition_of_planes(dtype: Any, shape: tuple[int, int]) -> None:
    """On either side of a square and of a line of the cache, into a part of wider lines, from a part of others."""
    rows, cols = shape
    x, before = values(dtype, (2, rows, cols + 3)), values(dtype, (2, cols, rows + 5))
    y = run_one(
        "move",
        {"x": x, "y": before},
        {"y": (before.shape, dtype)},
        dims=[2, cols, rows],
        x_strides=[rows * (cols + 3), 1, cols + 3],
        x_offset=2,
        y_strides=[cols * (rows + 5), rows + 5, 1],
        y_offset=4,
    )["y"]
    before[:, :, 4 : 4 + rows] = x[:, :, 2 : 2 + cols].transpose(0, 2, 1)
    np.testing.assert_array_equal(y, before)


@pytest.mark.parametrize("pixels", [5, 64, 150])
def test_planes_become_pixels(pixels: int) -> None:
    x = values(np.uint8, (2, 3, pixels))
    y = run_one(
        "move",
        {"x": x},
        {"y": ((2, pixels, 3), np.uint8)},
        dims=[2, 3, pixels],
        x_strides=[3 * pixels, pixels, 1],
        y_strides=[3 * pixels, 1, 3],
    )["y"]
    np.testing.assert_array_equal(y, x.transpose(0, 2, 1))


def test_slice_with_negative_step() -> None:
    x = values(np.int16, (4, 9))
    expected = x[1:3, 8:1:-3]
    y = run_one(
        "move",
        {"x": x},
        {"y": (expected.shape, np.int16)},
        dims=[2, 3],
        x_strides=[9, -3],
        x_offset=9 + 8,
        y_strides=[3, 1],
    )["y"]
    np.testing.assert_array_equal(y, expected)


def test_expand_reads_with_stride_zero() -> None:
    x = values(np.uint8, (3, 1))
    y = run_one(
        "move", {"x": x}, {"y": ((2, 3, 4), np.uint8)}, dims=[2, 3, 4], x_strides=[0, 1, 0], y_strides=[12, 4, 1]
    )["y"]
    np.testing.assert_array_equal(y, np.broadcast_to(x, (2, 3, 4)))


def test_concat_writes_into_a_part() -> None:
    x = values(np.uint8, (2, 3))
    before = np.full((2, 8), 9, np.uint8)
    y = run_one(
        "move",
        {"x": x, "y": before},
        {"y": ((2, 8), np.uint8)},
        dims=[2, 3],
        x_strides=[3, 1],
        y_strides=[8, 1],
        y_offset=4,
    )["y"]
    expected = np.full((2, 8), 9)
    expected[:, 4:7] = x
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("dtype", ELEMENTS)
def test_fill(dtype: Any) -> None:
    y = run_one("fill", {"y": values(dtype, (9,))}, {"y": ((9,), dtype)}, value=1, count=4, y_offset=3)["y"]
    expected = values(dtype, (9,))
    expected[3:7] = 1
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("x_type", [np.uint8, np.int8, np.int16, np.int32, np.int64, np.bool_])
@pytest.mark.parametrize("y_type", [np.uint8, np.int8, np.int16, np.int32, np.int64, np.bool_])
def test_cast_wraps_like_numpy(x_type: Any, y_type: Any) -> None:
    x = values(x_type, (30,))
    y = run_one("cast", {"x": x}, {"y": (x.shape, y_type)}, count=x.size)["y"]
    np.testing.assert_array_equal(y, x.astype(y_type))


@pytest.mark.parametrize("dtype", ELEMENTS)
@pytest.mark.parametrize("index_type", [np.int32, np.int64])
def test_gather(dtype: Any, index_type: Any) -> None:
    x, indices = values(dtype, (2, 5, 3)), np.array([0, 4, -1, -5, 2], index_type)
    y = run_one("gather", {"x": x, "indices": indices}, {"y": ((2, 5, 3), dtype)}, outer=2, axis=5, inner=3, count=5)[
        "y"
    ]
    np.testing.assert_array_equal(y, np.take(x, indices, axis=1))


@pytest.mark.parametrize("bad", [5, -6, 2**62, -(2**63)])
def test_gather_out_of_range_names_the_node(bad: int) -> None:
    x, indices = values(np.uint8, (5, 3)), np.array([0, bad], np.int64)
    program, feeds = build_one(
        "gather", {"x": x, "indices": indices}, {"y": ((2, 3), np.uint8)}, outer=1, axis=5, inner=3, count=2
    )
    with pytest.raises(FeedError, match=r"^node: an index is out of range"):
        Session(program).run(feeds)
    with pytest.raises(FeedError, match="out of range"):
        run_interpreted(program, feeds)


def test_gather_from_a_constant_table() -> None:
    table, indices = values(np.int16, (300, 4)), np.array([299, 3], np.int64)
    y = run_one(
        "gather", {"indices": indices}, {"y": ((2, 4), np.int16)}, x=table, outer=1, axis=300, inner=4, count=2
    )["y"]
    np.testing.assert_array_equal(y, table[indices])


@pytest.mark.parametrize("dtype", ELEMENTS)
@pytest.mark.parametrize("index_type", [np.int32, np.int64])
def test_scatter(dtype: Any, index_type: Any) -> None:
    x, indices = values(dtype, (6, 3)), np.array([0, 5, -1, -6, 2], index_type)
    updates = values(dtype, (8, 3))[3:]
    given = {"x": x, "indices": indices, "updates": updates}
    y = run_one("scatter", given, {"y": ((6, 3), dtype)}, axis=6, inner=3, count=5)["y"]
    expected = x.copy()
    for index, row in zip(indices, updates, strict=True):
        expected[index] = row
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("bad", [6, -7, 2**62, -(2**63)])
def test_scatter_out_of_range_names_the_node(bad: int) -> None:
    given = {"x": values(np.int16, (6,)), "indices": np.array([0, bad]), "updates": values(np.int16, (2,))}
    program, feeds = build_one("scatter", given, {"y": ((6,), np.int16)}, axis=6, count=2)
    with pytest.raises(FeedError, match=r"^node: an index is out of range"):
        Session(program).run(feeds)
    with pytest.raises(FeedError, match="out of range"):
        run_interpreted(program, feeds)


@pytest.mark.parametrize("channels", [1, 5, 171, 515])
@pytest.mark.parametrize("x_type", [np.uint8, np.int16])
@pytest.mark.parametrize("y_type", [np.uint8, np.int16])
def test_resize_linear(channels: int, x_type: Any, y_type: Any) -> None:
    """One, several and many pixels in a block, and more channels than a block has."""
    rng = np.random.default_rng(3)
    x = draw(rng, x_type, (2, 3, 4, channels))
    h_low, w_low = np.array([0, 0, 1, 2, 2]), np.array([3, 0])
    h_high, w_high = np.array([0, 1, 2, 2, 2]), np.array([3, 1])
    h_weight, w_weight = np.array([0, 16384, 32768, 5, 0]), np.array([7, 12345])
    m, n = 2**14, 44
    y = run_one(
        "resize_linear",
        {"x": x},
        {"y": ((2, 5, 2, channels), y_type)},
        h_low=h_low,
        h_high=h_high,
        h_weight=h_weight,
        w_low=w_low,
        w_high=w_high,
        w_weight=w_weight,
        batch=2,
        in_h=3,
        in_w=4,
        in_c=channels,
        out_h=5,
        out_w=2,
        x_zp=11,
        m=m,
        n=n,
        y_zp=11,
    )["y"]
    wide = x.astype(object) - 11
    rows = wide[:, h_low] * (32768 - h_weight)[:, None, None] + wide[:, h_high] * h_weight[:, None, None]
    both = rows[:, :, w_low] * (32768 - w_weight)[:, None] + rows[:, :, w_high] * w_weight[:, None]
    out = spec.Range(11, int(np.iinfo(y_type).min), int(np.iinfo(y_type).max))
    assert y.tolist() == np.vectorize(lambda v: out.code(spec.requant(int(v), m, n)), otypes=[object])(both).tolist()


@pytest.mark.parametrize("empty", ["in_h", "in_w"])
def test_an_image_without_pixels_is_not_resized(empty: str) -> None:
    sizes = {"batch": 1, "in_h": 2, "in_w": 2, "in_c": 1, "out_h": 1, "out_w": 1}
    tables = {f"{side}_{part}": np.zeros(1, np.int32) for side in "hw" for part in ("low", "high", "weight")}
    with pytest.raises(ProgramError, match="input image is empty"):
        run_one(
            "resize_linear",
            {"x": np.zeros((1, 2, 2, 1), np.uint8)},
            {"y": ((1, 1, 1, 1), np.uint8)},
            **tables,
            **(sizes | {empty: 0}),
            x_zp=0,
            m=2**14,
            n=44,
            y_zp=0,
        )
