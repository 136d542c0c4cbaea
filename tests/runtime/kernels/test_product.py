"""Matrix products and convolutions against brute force on Python integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.runtime import requant as spec
from qcompiler.runtime.binding.division import divide
from qcompiler.runtime.instructions.instruction import Form
from qcompiler.runtime.instructions.opcodes import BY_NAME
from qcompiler.runtime.session import Session
from qcompiler.runtime.vector.sum_tiles import Isa
from tests.runtime.checked import build_one, run_divided, run_one

FEW = settings(max_examples=12, deadline=None)
codes = st.sampled_from([np.uint8, np.int16])
seeds = st.integers(0, 2**32 - 1)


def layer(rng: np.random.Generator, shape: tuple[int, ...], outputs: int) -> dict[str, Any]:
    """Weights with the extreme ones among them, bias, multipliers."""
    w = rng.integers(-127, 128, shape).astype(np.int8)
    w[rng.random(shape) < 0.2] = rng.choice([-127, 127])
    return {
        "w": w,
        "bias": rng.integers(-(2**20), 2**20, outputs),
        "m": rng.integers(2**30, 2**31, outputs) * rng.choice([-1, 1], outputs),
        "n": rng.integers(36, 48, outputs),
    }


def requantized(acc: Any, p: dict[str, Any], out: spec.Range) -> Any:
    """Codes of object accumulators whose last axis is the output channel."""
    flat = acc.reshape(-1, acc.shape[-1])
    rows = [
        [out.code(spec.requant(int(a), int(m), int(n))) for a, m, n in zip(row, p["m"], p["n"], strict=True)]
        for row in flat
    ]
    return np.array(rows, dtype=object).reshape(acc.shape)


def draw(rng: np.random.Generator, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    info = np.iinfo(dtype)
    x = rng.integers(info.min, info.max + 1, shape).astype(dtype)
    x[rng.random(shape) < 0.1] = info.min
    x[rng.random(shape) < 0.1] = info.max
    return x


def zero_point(rng: np.random.Generator, dtype: Any) -> int:
    return int(rng.integers(0, 256)) if dtype is np.uint8 else 0


def output(rng: np.random.Generator) -> tuple[Any, spec.Range]:
    dtype = rng.choice([np.uint8, np.int16])
    info = np.iinfo(dtype)
    return dtype, spec.Range(
        int(rng.integers(0, 100)), int(info.min) + int(rng.integers(0, 20)), int(info.max) - int(rng.integers(0, 20))
    )


@FEW
@given(x_type=codes, rows=st.integers(1, 9), k=st.integers(0, 40), cols=st.integers(1, 40), seed=seeds)
def test_gemm(x_type: Any, rows: int, k: int, cols: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, p, zero = draw(rng, x_type, (rows, k + 3)), layer(rng, (k, cols), cols), zero_point(rng, x_type)
    dtype, out = output(rng)
    weights = p["w"].astype(np.int64)
    folded = p["bias"] - zero * weights.sum(axis=0)
    y = run_one(
        "gemm", {"x": x}, {"y": ((rows, cols + 2), dtype)}, **{**p, "bias": folded}, rows=rows, k=k, cols=cols,
        x_row=k + 3, x_offset=1, y_row=cols + 2,
        y_offset=2, y_zp=out.zero_point, lo=out.lo, hi=out.hi,
    )["y"]
    acc = (x[:, 1 : 1 + k].astype(np.int64) - zero) @ weights + p["bias"]
    assert y[:, 2:].tolist() == requantized(acc, p, out).tolist()
    assert k == 0 or not y[:, :2].any()  # with k = 0 the plan may put y over x, which is never read


@pytest.mark.parametrize("cols", [45, 48, 75])
@pytest.mark.parametrize("x_type", [np.uint8, np.int16])
def test_three_panels_at_a_time(x_type: Any, cols: int) -> None:
    """Tiles of 6, 4, 3 rows and one; whole panels and a part of one."""
    rng = np.random.default_rng(cols)
    x, p = draw(rng, x_type, (14, 6)), layer(rng, (6, cols), cols)
    for dtype in (np.uint8, np.int16):
        out = spec.Range(5, int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
        y = run_one("gemm", {"x": x}, {"y": ((14, cols), dtype)}, **p, rows=14, k=6, cols=cols, y_zp=5)["y"]
        assert y.tolist() == requantized(x.astype(np.int64) @ p["w"].astype(np.int64) + p["bias"], p, out).tolist()


def test_products_are_divided_by_columns_where_weights_are_many() -> None:
    rng = np.random.default_rng(9)
    x, p = draw(rng, np.uint8, (3, 5)), layer(rng, (5, 403), 403)
    program, feeds = build_one("gemm", {"x": x}, {"y": ((3, 403), np.uint8)}, **p, rows=3, k=5, cols=403)
    fields = BY_NAME["gemm"].row(Session(program, num_threads=1)._prepare(feeds).code[0].tolist())
    parts = divide(BY_NAME["gemm"], fields, 3, Form.PACKED, least=0, most=9)
    assert [(part["first_panel"], part["panels"]) for part in parts] == [
        (0, 4),
        (4, 4),
        (8, 4),
        (12, 4),
        (16, 4),
        (20, 4),
        (24, 2),
    ]
    assert all("rows" in part for part in divide(BY_NAME["gemm"], fields, 3, None, least=0, most=9))
    expected = requantized(x.astype(np.int64) @ p["w"].astype(np.int64) + p["bias"], p, spec.Range(0, 0, 255))
    for isa in Isa:
        if isa.supported:
            assert run_divided(program, feeds, isa)["y"].tolist() == expected.tolist()


def test_convolutions_are_divided_by_columns_where_weights_are_many() -> None:
    check_conv(np.uint8, ((2, 3), (2, 2), (1, 1), (1, 1), (0, 1, 1, 0)), (2, 210, 1), 1, 3, {})


@settings(max_examples=25, deadline=None)
@given(
    a_type=codes,
    b_type=codes,
    rows=st.integers(1, 9),
    k=st.integers(1, 20),
    cols=st.integers(1, 40),
    seed=seeds,
    n=st.integers(1, 40),
    flip=st.booleans(),
    acc64=st.booleans(),
)
def test_matmul(
    a_type: Any, b_type: Any, rows: int, k: int, cols: int, seed: int, n: int, flip: bool, acc64: bool
) -> None:
    acc64 = acc64 or (a_type is np.int16 and b_type is np.int16)
    check_matmul(a_type, b_type, rows, k, cols, seed, n, flip, acc64)


def check_matmul(
    a_type: Any, b_type: Any, rows: int, k: int, cols: int, seed: int, n: int, flip: bool, acc64: bool
) -> None:
    """Two batch dimensions, b shared over the first one; b may be stored transposed; y's rows and batches are
    interleaved."""
    rng = np.random.default_rng(seed)
    a, b = draw(rng, a_type, (2, 3, rows, k)), draw(rng, b_type, (3, cols, k) if flip else (3, k, cols))
    a_zp, b_zp = zero_point(rng, a_type), zero_point(rng, b_type)
    dtype, out = output(rng)
    m = int(rng.integers(-(2**15), 2**15))
    y = run_one(
        "matmul",
        {"a": a, "b": b},
        {"y": ((2, rows, 3, cols), dtype)},
        batch=[2, 3],
        a_strides=[3 * rows * k, rows * k],
        b_strides=[0, cols * k],
        y_strides=[3 * rows * cols, cols],
        a_row=k,
        a_col=1,
        b_row=1 if flip else cols,
        b_col=k if flip else 1,
        y_row=3 * cols,
        y_col=1,
        rows=rows,
        k=k,
        cols=cols,
        a_zp=a_zp,
        b_zp=b_zp,
        m=m,
        n=n,
        y_zp=out.zero_point,
        lo=out.lo,
        hi=out.hi,
        acc64=int(acc64),
    )["y"]
    right = b.swapaxes(-1, -2) if flip else b
    acc = np.matmul(a.astype(np.int64) - a_zp, right.astype(np.int64) - b_zp)
    expected = np.vectorize(lambda v: out.code(spec.requant(int(v), m, n)), otypes=[object])(acc).transpose(0, 2, 1, 3)
    assert y.tolist() == expected.tolist()


def test_products_larger_than_their_blocks() -> None:
    """More rows than a block of rows, more columns than a block of columns; compiled only, the checks would take
    minutes."""
    rng = np.random.default_rng(8)
    a, b = draw(rng, np.uint8, (101, 7)), draw(rng, np.int16, (7, 531))
    program, feeds = build_one(
        "matmul",
        {"a": a, "b": b},
        {"y": ((101, 531), np.int16)},
        a_row=7,
        a_col=1,
        b_row=531,
        b_col=1,
        y_row=531,
        y_col=1,
        rows=101,
        k=7,
        cols=531,
        a_zp=100,
        m=1 << 10,
        n=20,
    )
    acc = (a.astype(np.int64) - 100) @ b.astype(np.int64)
    for isa in Isa:
        if isa.supported:
            np.testing.assert_array_equal(
                Session(program, isa).raw(feeds)["y"], np.clip((acc * 1024 + (1 << 19)) >> 20, -32768, 32767)
            )


def test_wide_products_of_extreme_codes() -> None:
    check_matmul(np.uint8, np.int16, 7, 33, 40, 3, 20, True, False)
    check_matmul(np.int16, np.uint8, 13, 32, 70, 4, 20, False, False)


GEOMETRIES = [
    # in_h, in_w, kernel, stride, dilation, pads (top, left, bottom, right)
    ((5, 6), (1, 1), (1, 1), (1, 1), (0, 0, 0, 0)),
    ((5, 6), (3, 3), (1, 1), (1, 1), (1, 1, 1, 1)),
    ((7, 6), (3, 2), (2, 1), (1, 2), (0, 1, 2, 3)),
    ((1, 9), (1, 5), (1, 2), (1, 1), (0, 2, 0, 1)),
    ((3, 3), (5, 5), (1, 1), (1, 1), (2, 2, 2, 2)),
    ((8, 8), (2, 2), (2, 2), (3, 3), (0, 0, 0, 0)),
    ((3, 19), (3, 3), (2, 2), (1, 1), (1, 1, 1, 1)),
    ((4, 15), (2, 5), (1, 1), (1, 1), (0, 2, 1, 2)),
]
CHANNELS = [
    (3, 5, 1),
    (4, 4, 4),
    (6, 4, 2),
    (1, 3, 1),
    (3, 6, 3),
    (16, 33, 1),
    (32, 32, 32),
    (19, 19, 19),
    (67, 67, 67),
    (40, 40, 40),
    (6, 20, 2),
    (12, 36, 2),
]


def output_size(size: int, kernel: int, stride: int, dilation: int, pads: int) -> int:
    return (size + pads - dilation * (kernel - 1) - 1) // stride + 1


def brute_conv(x: Any, w: Any, geometry: Any, groups: int, pad: int) -> Any:
    """NHWC convolution of raw codes in int64; padding reads ``pad``."""
    (h, width), (kh, kw), (sh, sw), (dh, dw), (top, left, bottom, right) = geometry
    wide = np.full((x.shape[0], h + top + bottom, width + left + right, x.shape[3]), pad, np.int64)
    wide[:, top : top + h, left : left + width] = x
    out_h, out_w = output_size(h, kh, sh, dh, top + bottom), output_size(width, kw, sw, dw, left + right)
    per_in, per_out = x.shape[3] // groups, w.shape[3] // groups
    acc = np.zeros((x.shape[0], out_h, out_w, w.shape[3]), np.int64)
    for ky in range(kh):
        for kx in range(kw):
            part = wide[:, ky * dh : ky * dh + (out_h - 1) * sh + 1 : sh, kx * dw : kx * dw + (out_w - 1) * sw + 1 : sw]
            for g in range(groups):
                weights = w[ky, kx, :, g * per_out : (g + 1) * per_out].astype(np.int64)
                acc[..., g * per_out : (g + 1) * per_out] += part[..., g * per_in : (g + 1) * per_in] @ weights
    return acc


@settings(max_examples=25, deadline=None)
@given(
    x_type=codes,
    geometry=st.sampled_from(GEOMETRIES),
    channels=st.sampled_from(CHANNELS),
    batch=st.integers(1, 2),
    seed=seeds,
)
def test_conv(x_type: Any, geometry: Any, channels: Any, batch: int, seed: int) -> None:
    check_conv(x_type, geometry, channels, batch, seed, {})


@pytest.mark.parametrize("channels", [(19, 19, 19), (3, 37, 1)])
def test_conv_with_factors_of_any_size(channels: Any) -> None:
    """Small multipliers, small shifts: nearly all codes are saturated, or zero."""
    rng = np.random.default_rng(11)
    factors = {
        "m": rng.integers(-(2**31) + 1, 2**31, channels[1]) >> rng.integers(0, 32, channels[1]),
        "n": rng.integers(1, 63, channels[1]),
    }
    factors["n"][:8] = [1, 2, 3, 4, 31, 32, 33, 34]
    for x_type in (np.uint8, np.int16):
        check_conv(x_type, GEOMETRIES[1], channels, 1, 12, factors)


def check_conv(x_type: Any, geometry: Any, channels: Any, batch: int, seed: int, factors: dict[str, Any]) -> None:
    rng = np.random.default_rng(seed)
    (in_h, in_w), kernel, stride, dilation, pads = geometry
    in_c, out_c, groups = channels
    x, zero = draw(rng, x_type, (batch, in_h, in_w, in_c)), zero_point(rng, x_type)
    p = {**layer(rng, (*kernel, in_c // groups, out_c), out_c), **factors}
    dtype, out = output(rng)
    folded = p["bias"] - zero * p["w"].astype(np.int64).sum(axis=(0, 1, 2))
    acc = brute_conv(x, p["w"], geometry, groups, zero) + folded
    offset, pitch = (0, 0) if seed % 2 else (3, out_c + 5)  # dense, or a part of the channels of a wider image
    before = np.full((*acc.shape[:3], pitch or out_c), 9, dtype)
    y = run_one(
        "conv",
        {"x": x, "y": before},
        {"y": (before.shape, dtype)},
        y_pitch=pitch,
        y_offset=offset,
        **{**p, "bias": folded},
        batch=batch,
        in_h=in_h,
        in_w=in_w,
        in_c=in_c,
        out_h=acc.shape[1],
        out_w=acc.shape[2],
        out_c=out_c,
        kernel_h=kernel[0],
        kernel_w=kernel[1],
        stride_h=stride[0],
        stride_w=stride[1],
        dilation_h=dilation[0],
        dilation_w=dilation[1],
        pad_top=pads[0],
        pad_left=pads[1],
        groups=groups,
        x_zp=zero,
        y_zp=out.zero_point,
        lo=out.lo,
        hi=out.hi,
    )["y"]
    before[..., offset : offset + out_c] = requantized(acc, p, out)
    assert y.tolist() == before.tolist()


@pytest.mark.parametrize("channels", [(3, 5, 1), (4, 6, 2), (4, 4, 4), (5, 1, 1), (2, 37, 1)])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "pads", "extra"),
    [
        ((2, 2), (2, 2), (1, 1), (0, 0, 0, 0), 0),
        ((3, 3), (2, 1), (1, 2), (1, 0, 0, 1), 0),
        ((3, 2), (3, 2), (1, 1), (1, 1, 1, 1), 1),
        ((4, 4), (2, 2), (1, 1), (1, 1, 1, 1), 0),
        ((1, 3), (1, 4), (2, 1), (0, 0, 0, 0), 3),
    ],
)
@pytest.mark.parametrize("x_type", [np.uint8, np.int16])
def test_conv_transpose(
    channels: Any, kernel: Any, stride: Any, dilation: Any, pads: Any, extra: int, x_type: Any
) -> None:
    """On either side of a panel of columns and of a tile of rows; int16 with a zero point is not packed."""
    rng = np.random.default_rng(5)
    in_c, out_c, groups = channels
    in_w = 4 if x_type is np.uint8 else 7
    x, zero = draw(rng, x_type, (2, 3, in_w, in_c)), 0 if x_type is np.int16 and extra == 0 else 77
    p = layer(rng, (*kernel, in_c, out_c // groups), out_c)
    dtype, out = output(rng)
    full = [(n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip((3, in_w), stride, dilation, kernel, strict=True)]
    sizes = (full[0] - pads[0] - pads[2] + extra, full[1] - pads[1] - pads[3] + extra)
    canvas = np.zeros((2, full[0] + extra, full[1] + extra, out_c), np.int64)
    per_in, per_out = in_c // groups, out_c // groups
    for ky in range(kernel[0]):
        for kx in range(kernel[1]):
            for g in range(groups):
                weights = p["w"][ky, kx, g * per_in : (g + 1) * per_in].astype(np.int64)
                part = (x[..., g * per_in : (g + 1) * per_in].astype(np.int64) - zero) @ weights
                y0, x0 = ky * dilation[0], kx * dilation[1]
                canvas[
                    :,
                    y0 : y0 + 2 * stride[0] + 1 : stride[0],
                    x0 : x0 + (in_w - 1) * stride[1] + 1 : stride[1],
                    g * per_out : (g + 1) * per_out,
                ] += part
    acc = canvas[:, pads[0] : pads[0] + sizes[0], pads[1] : pads[1] + sizes[1]] + p["bias"]
    y = run_one(
        "conv_transpose",
        {"x": x},
        {"y": (acc.shape, dtype)},
        **p,
        batch=2,
        in_h=3,
        in_w=in_w,
        in_c=in_c,
        out_h=sizes[0],
        out_w=sizes[1],
        out_c=out_c,
        kernel_h=kernel[0],
        kernel_w=kernel[1],
        stride_h=stride[0],
        stride_w=stride[1],
        dilation_h=dilation[0],
        dilation_w=dilation[1],
        pad_top=pads[0],
        pad_left=pads[1],
        groups=groups,
        x_zp=zero,
        y_zp=out.zero_point,
        lo=out.lo,
        hi=out.hi,
    )["y"]
    assert y.tolist() == requantized(acc, p, out).tolist()
