"""Softmax and layer normalization on integers alone."""

from __future__ import annotations

from ..jit import jit
from ..memory import load_i64, store_64
from ..opcodes import columns
from .common import BLOCK_BYTES, BLOCKS, at, clamp, code_block, load_block, rounding, store_strided

_SOFTMAX, _NORM = columns("softmax"), columns("layernorm")


@jit
def _largest(values: int, count: int) -> int:
    best = load_i64(values, 0)
    for j in range(1, count):
        best = max(best, load_i64(values, j))
    return best


@jit
def _exponentials(values: int, count: int, table_hi: int, table_lo: int) -> int:
    """Replace codes by exp in Q30, relative to the largest; returns the sum."""
    peak, total = _largest(values, count), 0
    for j in range(count):
        distance = peak - load_i64(values, j)
        term = (load_i64(table_hi, distance >> 8) * load_i64(table_lo, distance & 255)) >> 30
        store_64(values, j, term)
        total += term
    return total


@jit
def _share_codes(row: int, values: int, count: int, inverse: int) -> None:
    """Replace Q30 terms by the code of their share of the sum: Q31, then requantized."""
    m, n, y_zp, lo, hi = at(row, _SOFTMAX.m), at(row, _SOFTMAX.n), at(row, _SOFTMAX.y_zp), at(row, _SOFTMAX.lo), at(row, _SOFTMAX.hi)
    half = rounding(n)
    for j in range(count):
        share = (load_i64(values, j) * inverse) >> 30
        store_64(values, j, clamp(((share * m + half) >> n) + y_zp, lo, hi))


@jit
def softmax(row: int, scratch: int) -> None:
    """Softmax over the middle axis of [outer, k, inner]."""
    values = scratch + BLOCKS * BLOCK_BYTES
    k, inner = at(row, _SOFTMAX.k), at(row, _SOFTMAX.inner)
    for line in range(at(row, _SOFTMAX.outer) * inner):
        start = line // inner * k * inner + line % inner
        load_block(values, at(row, _SOFTMAX.x), at(row, _SOFTMAX.x_type), start, inner, k)
        total = _exponentials(values, k, at(row, _SOFTMAX.table_hi), at(row, _SOFTMAX.table_lo))
        _share_codes(row, values, k, (1 << 61) // total if total > 0 else 0)
        store_strided(at(row, _SOFTMAX.y), at(row, _SOFTMAX.y_type), start, inner, values, k)


@jit
def normalizing_shift(variance: int) -> int:
    """Largest t with ``variance << 2t < 2^62``, for ``1 <= variance < 2^62``."""
    t = 0
    while variance < 1 << 60:
        variance <<= 2
        t += 1
    return t


@jit
def integer_sqrt(value: int) -> int:
    """Exact floor of the square root, for ``2^60 <= value < 2^62``: Newton's method from above."""
    root = 1 << 31
    following = (root + value // root) >> 1
    while following < root:
        root = following
        following = (root + value // root) >> 1
    return root


@jit
def _variance(values: int, count: int, total: int, epsilon: int) -> int:
    squares = 0
    for j in range(count):
        squares += load_i64(values, j) * load_i64(values, j)
    return count * squares - total * total + epsilon


@jit
def _epsilon_term(row: int, k: int) -> int:
    epsilon = at(row, _NORM.epsilon)
    return epsilon if epsilon > 0 else max(1, (at(row, _NORM.epsilon_q) * k * k) >> 16)


@jit
def _normalize(values: int, k: int, epsilon: int) -> None:
    """Replace codes by their normalized values, Q20."""
    total = 0
    for j in range(k):
        total += load_i64(values, j)
    variance = _variance(values, k, total, epsilon)
    t = normalizing_shift(variance)
    inverse = (1 << 61) // integer_sqrt(variance << (2 * t))
    for j in range(k):
        store_64(values, j, ((k * load_i64(values, j) - total) * inverse) >> (41 - t))


@jit
def _scale_line(row: int, values: int, k: int, parameter: int) -> None:
    """Apply gamma and beta; ``parameter`` >= 0 is the one pair of the whole line, else each element has its own."""
    n, gamma, beta = at(row, _NORM.n), at(row, _NORM.gamma), at(row, _NORM.beta)
    half = rounding(n)
    if parameter >= 0:
        factor, offset = load_i64(gamma, parameter), load_i64(beta, parameter) + half
        for j in range(k):
            store_64(values, j, (load_i64(values, j) * factor + offset) >> n)
    else:
        for j in range(k):
            store_64(values, j, (load_i64(values, j) * load_i64(gamma, j) + load_i64(beta, j) + half) >> n)


@jit
def layernorm(row: int, scratch: int) -> None:
    """Layer (or instance) normalization over the middle axis of [outer, k, inner]."""
    values = scratch + BLOCKS * BLOCK_BYTES
    k, inner, channels = at(row, _NORM.k), at(row, _NORM.inner), max(at(row, _NORM.channels), 1)
    per_row, epsilon = at(row, _NORM.per_row) != 0, _epsilon_term(row, k)
    for line in range(at(row, _NORM.outer) * inner):
        start = line // inner * k * inner + line % inner
        load_block(values, at(row, _NORM.x), at(row, _NORM.x_type), start, inner, k)
        _normalize(values, k, epsilon)
        _scale_line(row, values, k, line % channels if per_row else -1)
        code_block(values, k, at(row, _NORM.y_zp), at(row, _NORM.lo), at(row, _NORM.hi))
        store_strided(at(row, _NORM.y), at(row, _NORM.y_type), start, inner, values, k)
