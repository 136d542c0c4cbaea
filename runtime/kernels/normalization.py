"""Softmax and layer normalization on integers alone."""

from __future__ import annotations

from ..cpu.jit import jit
from ..instructions.instruction import ISA_COLUMN, Element
from ..instructions.opcodes import columns
from ..vector.memory import load_i16, load_i32, load_i64, load_u8, store_8, store_16, store_32, store_64
from ..vector.softmax_tables import COARSE_SHIFT, FINE, MIDDLE, MIDDLE_SHIFT, exponentials_i16, exponentials_u8
from ..vector.sum_tiles import LANES, Isa
from .common import (
    BLOCK_BYTES,
    BLOCKS,
    at,
    clamp,
    code_block,
    load_block,
    requant_block,
    rounding,
    size_of,
    store_strided,
)

_SOFTMAX, _NORM = columns("softmax"), columns("layernorm")
_I16, _AVX512 = int(Element.I16), int(Isa.AVX512_VNNI)


@jit
def _largest(values: int, count: int) -> int:
    best = load_i64(values, 0)
    for j in range(1, count):
        best = max(best, load_i64(values, j))
    return best


@jit
def _exponential(row: int, distance: int) -> int:
    """exp of a distance from the largest code, in Q30."""
    coarse = load_i32(at(row, _SOFTMAX.table_coarse), distance >> COARSE_SHIFT)
    middle = load_i32(at(row, _SOFTMAX.table_middle), (distance >> MIDDLE_SHIFT) & (MIDDLE - 1))
    return (((coarse * middle) >> 30) * load_i32(at(row, _SOFTMAX.table_fine), distance & (FINE - 1))) >> 30


@jit
def _largest_code(x: int, wide: bool, count: int) -> int:
    peak = -32768
    if wide:
        for j in range(count):
            peak = max(peak, load_i16(x, j))
    else:
        for j in range(count):
            peak = max(peak, load_u8(x, j))
    return peak


@jit
def _dense_terms(row: int, x: int, terms: int, count: int) -> int:
    """int32 exponentials of a dense line, relative to its largest code; returns their sum."""
    wide, total, done = at(row, _SOFTMAX.x_type) == _I16, 0, 0
    peak = _largest_code(x, wide, count)
    if at(row, ISA_COLUMN) == _AVX512:
        coarse, middle, fine = (
            at(row, _SOFTMAX.table_coarse),
            at(row, _SOFTMAX.table_middle),
            at(row, _SOFTMAX.table_fine),
        )
        blocks = count // LANES
        if wide:
            total = exponentials_i16(terms, x, peak, coarse, middle, fine, blocks)
        else:
            total = exponentials_u8(terms, x, peak, coarse, middle, fine, blocks)
        done = blocks * LANES
    for j in range(done, count):
        term = _exponential(row, peak - (load_i16(x, j) if wide else load_u8(x, j)))
        store_32(terms, j, term)
        total += term
    return total


@jit
def _dense_shares(row: int, y: int, terms: int, count: int, inverse: int) -> None:
    """The codes of int32 terms' shares of their sum: Q31, then requantized."""
    m, n, y_zp = at(row, _SOFTMAX.m), at(row, _SOFTMAX.n), at(row, _SOFTMAX.y_zp)
    lo, hi, half = at(row, _SOFTMAX.lo) - y_zp, at(row, _SOFTMAX.hi) - y_zp, rounding(at(row, _SOFTMAX.n))
    if at(row, _SOFTMAX.y_type) == _I16:
        for j in range(count):
            store_16(y, j, clamp((((load_i32(terms, j) * inverse) >> 30) * m + half) >> n, lo, hi) + y_zp)
    else:
        for j in range(count):
            store_8(y, j, clamp((((load_i32(terms, j) * inverse) >> 30) * m + half) >> n, lo, hi) + y_zp)


@jit
def _softmax_line(row: int, values: int, start: int) -> None:
    """One line whose elements lie ``inner`` apart."""
    k, inner = at(row, _SOFTMAX.k), at(row, _SOFTMAX.inner)
    load_block(values, at(row, _SOFTMAX.x), at(row, _SOFTMAX.x_type), start, inner, k)
    peak, total = _largest(values, k), 0
    for j in range(k):
        term = _exponential(row, peak - load_i64(values, j))
        store_64(values, j, term)
        total += term
    inverse = (1 << 61) // total if total > 0 else 0
    for j in range(k):
        store_64(values, j, (load_i64(values, j) * inverse) >> 30)
    requant_block(values, k, at(row, _SOFTMAX.m), at(row, _SOFTMAX.n))
    code_block(values, k, at(row, _SOFTMAX.y_zp), at(row, _SOFTMAX.lo), at(row, _SOFTMAX.hi))
    store_strided(at(row, _SOFTMAX.y), at(row, _SOFTMAX.y_type), start, inner, values, k)


@jit
def softmax(row: int, scratch: int) -> None:
    """Softmax over the middle axis of [outer, k, inner]."""
    values, k, inner = scratch + BLOCKS * BLOCK_BYTES, at(row, _SOFTMAX.k), at(row, _SOFTMAX.inner)
    if inner != 1:
        for line in range(at(row, _SOFTMAX.outer) * inner):
            _softmax_line(row, values, line // inner * k * inner + line % inner)
        return
    x_pitch, y_pitch = k * size_of(at(row, _SOFTMAX.x_type)), k * size_of(at(row, _SOFTMAX.y_type))
    for line in range(at(row, _SOFTMAX.outer)):
        total = _dense_terms(row, at(row, _SOFTMAX.x) + line * x_pitch, values, k)
        _dense_shares(row, at(row, _SOFTMAX.y) + line * y_pitch, values, k, (1 << 61) // total if total > 0 else 0)


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
