"""Pools, softmax and normalization against the specification on Python integers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.runtime import requant as spec
from qcompiler.runtime.kernels.normalization import integer_sqrt, normalizing_shift
from qcompiler.runtime.session import Session
from tests.runtime.checked import build_one, run_one
from tests.runtime.kernels.test_product import GEOMETRIES, draw, output, output_size, zero_point

FEW = settings(max_examples=12, deadline=None)
codes = st.sampled_from([np.uint8, np.int16])
seeds = st.integers(0, 2**32 - 1)


def windows(geometry: Any) -> tuple[tuple[int, int], list[list[list[tuple[int, int]]]]]:
    """Output size and, for every output position, the input positions of its window (padding included)."""
    (h, w), (kh, kw), (sh, sw), (dh, dw), (top, left, bottom, right) = geometry
    size = output_size(h, kh, sh, dh, top + bottom), output_size(w, kw, sw, dw, left + right)
    taps = [(ky * dh - top, kx * dw - left) for ky in range(kh) for kx in range(kw)]
    return size, [[[(oy * sh + dy, ox * sw + dx) for dy, dx in taps] for ox in range(size[1])] for oy in range(size[0])]


def geometry_fields(geometry: Any, size: tuple[int, int], batch: int, channels: int) -> dict[str, int]:
    (h, w), (kh, kw), (sh, sw), (dh, dw), (top, left, _, _) = geometry
    return {
        "batch": batch,
        "in_h": h,
        "in_w": w,
        "in_c": channels,
        "out_h": size[0],
        "out_w": size[1],
        "kernel_h": kh,
        "kernel_w": kw,
        "stride_h": sh,
        "stride_w": sw,
        "dilation_h": dh,
        "dilation_w": dw,
        "pad_top": top,
        "pad_left": left,
    }


@FEW
@given(dtype=codes, geometry=st.sampled_from(GEOMETRIES), channels=st.sampled_from([1, 3, 17]), seed=seeds)
def test_max_pool(dtype: Any, geometry: Any, channels: int, seed: int) -> None:
    x = draw(np.random.default_rng(seed), dtype, (2, *geometry[0], channels))
    size, places = windows(geometry)
    y = run_one(
        "max_pool", {"x": x}, {"y": ((2, *size, channels), dtype)}, **geometry_fields(geometry, size, 2, channels)
    )["y"]
    for oy, ox in np.ndindex(size):
        inside = [x[:, iy, ix] for iy, ix in places[oy][ox] if 0 <= iy < x.shape[1] and 0 <= ix < x.shape[2]]
        expected = np.max(inside, axis=0) if inside else np.full((2, channels), np.iinfo(dtype).min)
        np.testing.assert_array_equal(y[:, oy, ox], expected)


@FEW
@given(dtype=codes, geometry=st.sampled_from(GEOMETRIES), include=st.booleans(), seed=seeds)
def test_average_pool(dtype: Any, geometry: Any, include: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, zero = draw(rng, dtype, (2, *geometry[0], 3)), zero_point(rng, dtype)
    (y_type, out), (size, places) = output(rng), windows(geometry)
    taps = geometry[1][0] * geometry[1][1]
    pairs = [spec.multiplier(0.83 / (i + 1)) for i in range(taps)]
    y = run_one(
        "average_pool",
        {"x": x},
        {"y": ((2, *size, 3), y_type)},
        m=np.array([p[0] for p in pairs]),
        n=np.array([p[1] for p in pairs]),
        pad_bottom=geometry[4][2],
        pad_right=geometry[4][3],
        count_include_pad=int(include),
        x_zp=zero,
        y_zp=out.zero_point,
        lo=out.lo,
        hi=out.hi,
        **geometry_fields(geometry, size, 2, 3),
    )["y"]
    bottom, right = x.shape[1] + geometry[4][2], x.shape[2] + geometry[4][3]
    for oy, ox in np.ndindex(size):
        real = [(iy, ix) for iy, ix in places[oy][ox] if 0 <= iy < x.shape[1] and 0 <= ix < x.shape[2]]
        counted = sum(iy < bottom and ix < right for iy, ix in places[oy][ox]) if include else len(real)
        m, n = pairs[max(counted, 1) - 1]
        for b, c in np.ndindex(2, 3):
            total = sum(int(x[b, iy, ix, c]) - zero for iy, ix in real)
            assert y[b, oy, ox, c] == out.code(spec.requant(total, m, n))


def exp_tables(scale: float) -> list[np.ndarray]:
    steps = ((32, 2048), (32, 64), (64, 1))
    return [
        np.array([round(math.exp(-scale * width * s) * 2**30) for s in range(count)], np.int32)
        for count, width in steps
    ]


@FEW
@given(
    dtype=codes,
    outer=st.integers(1, 3),
    k=st.integers(1, 50),
    inner=st.integers(1, 2),
    seed=seeds,
    scale=st.sampled_from([1e-4, 0.01, 0.2]),
)
def test_softmax(dtype: Any, outer: int, k: int, inner: int, seed: int, scale: float) -> None:
    check_softmax(dtype, outer, k, inner, seed, scale)


@pytest.mark.parametrize("shape", [(2, 3, 16), (1, 5, 33), (1, 2, 515), (1, 2100, 17), (2, 19, 15)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
@pytest.mark.parametrize("seed", [0, 1])
def test_softmax_of_lines_side_by_side(shape: tuple[int, int, int], dtype: Any, seed: int) -> None:
    """As many as are computed at a time, one more, and more than a block."""
    check_softmax(dtype, *shape, seed, 0.01)


def check_softmax(dtype: Any, outer: int, k: int, inner: int, seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    x, tables = draw(rng, dtype, (outer, k, inner)), exp_tables(scale)
    if seed % 2:  # codes near each other, where no exponential vanishes
        x = rng.integers(20, 90, x.shape).astype(dtype)
    m, n = spec.multiplier(2.0**-31 * 255)
    named = dict(zip(("table_coarse", "table_middle", "table_fine"), tables, strict=True))
    y = run_one(
        "softmax", {"x": x}, {"y": (x.shape, np.uint8)}, **named, outer=outer, k=k, inner=inner, m=m, n=n,
    )["y"]
    out = spec.Range(0, 0, 255)
    for o, i in np.ndindex(outer, inner):
        assert y[o, :, i].tolist() == spec.softmax(x[o, :, i].tolist(), [table.tolist() for table in tables], m, n, out)
        real = np.exp(scale * (x[o, :, i].astype(float) - x[o, :, i].max()))
        assert np.abs(y[o, :, i] / 255 - real / real.sum()).max() < 0.6 / 255


@settings(max_examples=25, deadline=None)
@given(
    dtype=codes,
    outer=st.integers(1, 2),
    k=st.integers(1, 40),
    inner=st.integers(1, 3),
    seed=seeds,
    per_row=st.booleans(),
    epsilon=st.sampled_from([0, 1, 10**6]),
)
def test_layernorm(dtype: Any, outer: int, k: int, inner: int, seed: int, per_row: bool, epsilon: int) -> None:
    rng = np.random.default_rng(seed)
    x, (y_type, out) = draw(rng, dtype, (outer, k, inner)), output(rng)
    if seed % 3 == 0:
        x[:] = x[0, 0, 0]  # no variance at all
    count = inner if per_row else k
    gamma, beta = rng.integers(-(2**20), 2**20, count), rng.integers(-(2**30), 2**30, count)
    y = run_one(
        "layernorm",
        {"x": x},
        {"y": (x.shape, y_type)},
        gamma=gamma,
        beta=beta,
        outer=outer,
        k=k,
        inner=inner,
        per_row=int(per_row),
        channels=inner,
        epsilon=epsilon,
        epsilon_q=12345,
        n=24,
        y_zp=out.zero_point,
        lo=out.lo,
        hi=out.hi,
    )["y"]
    term = spec.norm_epsilon(epsilon, 12345, k)
    for o, i in np.ndindex(outer, inner):
        g, b = ([int(gamma[i])] * k, [int(beta[i])] * k) if per_row else (gamma.tolist(), beta.tolist())
        assert y[o, :, i].tolist() == spec.layernorm(x[o, :, i].tolist(), g, b, term, 24, out)


def test_layernorm_of_the_widest_row() -> None:
    """32768 extreme codes: nothing overflows."""
    x = np.tile(np.array([-32768, 32767], np.int16), 16384).reshape(1, -1)
    gamma, beta = np.full(32768, 3), np.full(32768, -5)
    program, feeds = build_one(
        "layernorm", {"x": x}, {"y": (x.shape, np.int16)}, gamma=gamma, beta=beta, outer=1, k=32768, epsilon=1, n=10
    )
    y = Session(program).raw(feeds)["y"]
    assert y[0].tolist() == spec.layernorm(
        x[0].tolist(), gamma.tolist(), beta.tolist(), 1, 10, spec.Range(0, -32768, 32767)
    )


@given(
    st.one_of(
        st.integers(1, 2**62 - 1),
        st.integers(0, 61).map(lambda e: 2**e),
        st.integers(1, 2**31 - 1).map(lambda r: r * r),
    )
)
@settings(max_examples=200, deadline=None)
def test_integer_square_root_is_exact(value: int) -> None:
    t = normalizing_shift.py_func(value)  # type: ignore[attr-defined]
    scaled = value << (2 * t)
    assert 2**60 <= scaled < 2**62
    assert integer_sqrt.py_func(scaled) == math.isqrt(scaled)  # type: ignore[attr-defined]
