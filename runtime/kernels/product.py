"""Matrix products, plain: the reference that the packed kernels are tested equal to."""

from __future__ import annotations

from ..cpu.jit import jit
from ..instructions.instruction import Element
from ..instructions.opcodes import columns
from ..vector.memory import load_i8, load_i32, load_i64, store_8, store_16, store_32, store_64
from .common import BLOCK_BYTES, BLOCKS, at, clamp, fetch, put, rounding, size_of

_GEMM, _MATMUL = columns("gemm"), columns("matmul")
_I16 = int(Element.I16)


@jit
def accumulate(acc: int, w: int, value: int, count: int) -> None:
    """``acc[j] += value * w[j]`` in int32 (int64 sums cut to 32 bits: exact, since the total fits)."""
    for j in range(count):
        store_32(acc, j, load_i32(acc, j) + value * load_i8(w, j))


@jit
def copy_i32(target: int, source: int, count: int) -> None:
    """Start accumulators at the bias."""
    for j in range(count):
        store_32(target, j, load_i32(source, j))


@jit
def store_row(
    y: int, element: int, start: int, acc: int, m: int, n: int, count: int, y_zp: int, lo: int, hi: int
) -> None:
    """Requantize int32 accumulators, one multiplier each, into a dense row of codes."""
    first = y + start * size_of(element)
    if element == _I16:
        for j in range(count):
            store_16(first, j, clamp(_requantized(acc, m, n, j) + y_zp, lo, hi))
    else:
        for j in range(count):
            store_8(first, j, clamp(_requantized(acc, m, n, j) + y_zp, lo, hi))


@jit
def _requantized(acc: int, m: int, n: int, j: int) -> int:
    shift = load_i32(n, j)
    return (load_i32(acc, j) * load_i32(m, j) + rounding(shift)) >> shift


@jit
def gemm(row: int, scratch: int) -> None:
    """``y = out(requant(bias + x @ w))``; x's zero point is in the bias."""
    acc = scratch + BLOCKS * BLOCK_BYTES
    x, w, y, cols = at(row, _GEMM.x), at(row, _GEMM.w), at(row, _GEMM.y), at(row, _GEMM.cols)
    for i in range(at(row, _GEMM.rows)):
        copy_i32(acc, at(row, _GEMM.bias), cols)
        start = at(row, _GEMM.x_offset) + i * at(row, _GEMM.x_row)
        for k in range(at(row, _GEMM.k)):
            accumulate(acc, w + k * cols, fetch(x, at(row, _GEMM.x_type), start + k), cols)
        store_row(
            y,
            at(row, _GEMM.y_type),
            at(row, _GEMM.y_offset) + i * at(row, _GEMM.y_row),
            acc,
            at(row, _GEMM.m),
            at(row, _GEMM.n),
            cols,
            at(row, _GEMM.y_zp),
            at(row, _GEMM.lo),
            at(row, _GEMM.hi),
        )


@jit
def batch_offset(row: int, strides: int, index: int) -> int:
    """Element offset of a matrix in a batch of up to four dimensions."""
    offset = 0
    for k in range(3, -1, -1):
        size = at(row, _MATMUL.b0 + k)
        if size > 1:
            offset += (index % size) * at(row, strides + k)
            index //= size
    return offset


@jit
def _matmul_row(row: int, acc: int, a_start: int, b_start: int) -> None:
    """int64 accumulators of one output row."""
    a, b, cols = at(row, _MATMUL.a), at(row, _MATMUL.b), at(row, _MATMUL.cols)
    for j in range(cols):
        store_64(acc, j, 0)
    for k in range(at(row, _MATMUL.k)):
        value = fetch(a, at(row, _MATMUL.a_type), a_start + k * at(row, _MATMUL.a_col)) - at(row, _MATMUL.a_zp)
        start = b_start + k * at(row, _MATMUL.b_row)
        for j in range(cols):
            other = fetch(b, at(row, _MATMUL.b_type), start + j * at(row, _MATMUL.b_col)) - at(row, _MATMUL.b_zp)
            store_64(acc, j, load_i64(acc, j) + value * other)


@jit
def matmul(row: int, scratch: int) -> None:
    """Product of two activations, batched, with strides on all sides."""
    acc = scratch + BLOCKS * BLOCK_BYTES
    batches = at(row, _MATMUL.b0) * at(row, _MATMUL.b1) * at(row, _MATMUL.b2) * at(row, _MATMUL.b3)
    m, n, half = at(row, _MATMUL.m), at(row, _MATMUL.n), rounding(at(row, _MATMUL.n))
    y_zp, lo, hi = at(row, _MATMUL.y_zp), at(row, _MATMUL.lo), at(row, _MATMUL.hi)
    for batch in range(batches):
        a_start = at(row, _MATMUL.a_offset) + batch_offset(row, _MATMUL.a_s0, batch)
        b_start = at(row, _MATMUL.b_offset) + batch_offset(row, _MATMUL.b_s0, batch)
        y_start = at(row, _MATMUL.y_offset) + batch_offset(row, _MATMUL.y_s0, batch)
        for i in range(at(row, _MATMUL.rows)):
            _matmul_row(row, acc, a_start + i * at(row, _MATMUL.a_row), b_start)
            for j in range(at(row, _MATMUL.cols)):
                code = clamp(((load_i64(acc, j) * m + half) >> n) + y_zp, lo, hi)
                put(
                    at(row, _MATMUL.y),
                    at(row, _MATMUL.y_type),
                    y_start + i * at(row, _MATMUL.y_row) + j * at(row, _MATMUL.y_col),
                    code,
                )
