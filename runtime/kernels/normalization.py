"""Softmax and layer normalization on integers alone."""

from __future__ import annotations

from ..cpu.jit import jit
from ..instructions import extents
from ..instructions.instruction import ISA_COLUMN, Element
from ..instructions.opcodes import columns
from ..vector.memory import load_i16, load_i32, load_i64, load_u8, store_8, store_16, store_32, store_64
from ..vector.softmax_tables import COARSE_SHIFT, FINE, MIDDLE, MIDDLE_SHIFT, exponentials_i16, exponentials_u8
from ..vector.sum_tiles import LANES, Isa
from .common import (
    BLOCK_BYTES,
    BLOCKS,
    as_int32,
    at,
    clamp,
    load_block,
    rounding,
    size_of,
    store_block,
    store_strided,
)
from .movement import copy_elements

_SOFTMAX, _NORM = columns("softmax"), columns("layernorm")
_I16, _AVX512 = int(Element.I16), int(Isa.AVX512_VNNI)
_TOP = (1 << 15) - 1
"""Any difference of two codes fits int16 below it."""

_columns_at_once = jit(extents.softmax_columns)


@jit
def _exponential(tables: tuple[int, int, int], distance: int) -> int:
    """exp of a distance from the largest code, in Q30."""
    coarse, middle = load_i32(tables[0], distance >> COARSE_SHIFT), (distance >> MIDDLE_SHIFT) & (MIDDLE - 1)
    return (((coarse * load_i32(tables[1], middle)) >> 30) * load_i32(tables[2], distance & (FINE - 1))) >> 30


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
def _terms(row: int, x: int, wide: bool, peak: int, terms: int, count: int) -> int:
    """int32 exponentials of codes that lie side by side, relative to ``peak``; returns their sum."""
    tables, total, done = (
        (at(row, _SOFTMAX.table_coarse), at(row, _SOFTMAX.table_middle), at(row, _SOFTMAX.table_fine)),
        0,
        0,
    )
    if at(row, ISA_COLUMN) == _AVX512:
        coarse, middle, fine = tables
        blocks = count // LANES
        if wide:
            total = exponentials_i16(terms, x, peak, coarse, middle, fine, blocks)
        else:
            total = exponentials_u8(terms, x, peak, coarse, middle, fine, blocks)
        done = blocks * LANES
    for j in range(done, count):
        term = _exponential(tables, peak - (load_i16(x, j) if wide else load_u8(x, j)))
        store_32(terms, j, term)
        total += term
    return total


@jit
def _dense_shares(row: int, y: int, terms: int, count: int, inverse: int) -> None:
    """The codes of int32 terms' shares of their sum: Q31, then requantized."""
    m, n, y_zp = at(row, _SOFTMAX.m), at(row, _SOFTMAX.n), at(row, _SOFTMAX.y_zp)
    lo, hi, half = at(row, _SOFTMAX.lo), at(row, _SOFTMAX.hi), rounding(at(row, _SOFTMAX.n))
    if at(row, _SOFTMAX.y_type) == _I16:
        for j in range(count):
            store_16(y, j, clamp(((((load_i32(terms, j) * inverse) >> 30) * m + half) >> n) + y_zp, lo, hi))
    else:
        for j in range(count):
            store_8(y, j, clamp(((((load_i32(terms, j) * inverse) >> 30) * m + half) >> n) + y_zp, lo, hi))


@jit
def _inverse(total: int) -> int:
    return (1 << 61) // total if total > 0 else 0


@jit
def _softmax_columns(row: int, scratch: int, start: int, count: int) -> None:
    """``count`` lines side by side from ``start`` on, whose elements lie ``inner`` apart."""
    peaks, totals, block, terms = scratch, scratch + BLOCK_BYTES, scratch + 2 * BLOCK_BYTES, scratch + 3 * BLOCK_BYTES
    k, inner, x, element = at(row, _SOFTMAX.k), at(row, _SOFTMAX.inner), at(row, _SOFTMAX.x), at(row, _SOFTMAX.x_type)
    m, n, y_zp, lo, hi = (
        at(row, _SOFTMAX.m),
        at(row, _SOFTMAX.n),
        at(row, _SOFTMAX.y_zp),
        at(row, _SOFTMAX.lo),
        at(row, _SOFTMAX.hi),
    )
    half, codes = rounding(n), terms + 4 * k * count
    for c in range(count):
        store_64(peaks, c, -_TOP - 1)
        store_64(totals, c, 0)
    for j in range(k):
        load_block(block, x, element, start + j * inner, 1, count)
        for c in range(count):
            store_64(peaks, c, max(load_i64(peaks, c), load_i64(block, c)))
    for j in range(k):
        load_block(block, x, element, start + j * inner, 1, count)
        for c in range(count):
            store_16(codes, c, load_i64(block, c) - load_i64(peaks, c) + _TOP)
        _terms(row, codes, True, _TOP, terms + 4 * j * count, count)
        for c in range(count):
            store_64(totals, c, load_i64(totals, c) + load_i32(terms + 4 * j * count, c))
    for c in range(count):
        store_64(totals, c, _inverse(load_i64(totals, c)))
    for j in range(k):
        for c in range(count):
            share = (load_i32(terms + 4 * j * count, c) * load_i64(totals, c)) >> 30
            store_64(block, c, clamp(((share * m + half) >> n) + y_zp, lo, hi))
        store_block(at(row, _SOFTMAX.y), at(row, _SOFTMAX.y_type), start + j * inner, block, count)


@jit
def _softmax_line(row: int, y: int, x: int, terms: int) -> None:
    """A line whose elements lie side by side."""
    k, wide = at(row, _SOFTMAX.k), at(row, _SOFTMAX.x_type) == _I16
    total = _terms(row, x, wide, _largest_code(x, wide, k), terms, k)
    _dense_shares(row, y, terms, k, _inverse(total))


@jit
def _softmax_apart(row: int, scratch: int, start: int) -> None:
    """A line from ``start`` on whose elements lie ``inner`` apart, by a copy."""
    k, inner, terms = at(row, _SOFTMAX.k), at(row, _SOFTMAX.inner), scratch + BLOCKS * BLOCK_BYTES
    size, y_size, codes = size_of(at(row, _SOFTMAX.x_type)), size_of(at(row, _SOFTMAX.y_type)), terms + 4 * k
    copy_elements(codes, at(row, _SOFTMAX.x) + start * size, size, k, 1, inner)
    _softmax_line(row, codes, codes, terms)
    copy_elements(at(row, _SOFTMAX.y) + start * y_size, codes, y_size, k, inner, 1)


@jit
def softmax(row: int, scratch: int) -> None:
    """Softmax over the middle axis of [outer, k, inner]."""
    k, inner, terms = at(row, _SOFTMAX.k), at(row, _SOFTMAX.inner), scratch + BLOCKS * BLOCK_BYTES
    x_pitch, y_pitch = k * size_of(at(row, _SOFTMAX.x_type)), k * size_of(at(row, _SOFTMAX.y_type))
    together = _columns_at_once(k, inner)
    for outer in range(at(row, _SOFTMAX.outer)):
        if inner == 1:
            _softmax_line(row, at(row, _SOFTMAX.y) + outer * y_pitch, at(row, _SOFTMAX.x) + outer * x_pitch, terms)
        elif inner < LANES:
            for c in range(inner):
                _softmax_apart(row, scratch, outer * k * inner + c)
        else:
            for first in range(0, inner, together):
                _softmax_columns(row, scratch, outer * k * inner + first, min(together, inner - first))


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
def _epsilon_term(row: int, k: int) -> int:
    epsilon = at(row, _NORM.epsilon)
    return epsilon if epsilon > 0 else max(1, (at(row, _NORM.epsilon_q) * k * k) >> 16)


@jit
def _normalize(values: int, k: int, epsilon: int) -> None:
    """Replace codes by their normalized values, Q20."""
    total, squares = 0, 0
    for j in range(k):
        value = as_int32(load_i64(values, j))
        total += value
        squares += value * value
    variance = k * squares - total * total + epsilon
    t = normalizing_shift(variance)
    inverse = (1 << 61) // integer_sqrt(variance << (2 * t))
    factor, offset = k * inverse, total * inverse
    for j in range(k):
        store_64(values, j, (load_i64(values, j) * factor - offset) >> (41 - t))


@jit
def _scale_line(row: int, values: int, k: int, parameter: int) -> None:
    """Codes by gamma and beta; ``parameter`` >= 0 is the one pair of the whole line, else each element has its own."""
    n, gamma, beta = at(row, _NORM.n), at(row, _NORM.gamma), at(row, _NORM.beta)
    half, y_zp, lo, hi = rounding(n), at(row, _NORM.y_zp), at(row, _NORM.lo), at(row, _NORM.hi)
    if parameter >= 0:
        factor, offset = load_i64(gamma, parameter), load_i64(beta, parameter) + half
        for j in range(k):
            store_64(values, j, clamp(((load_i64(values, j) * factor + offset) >> n) + y_zp, lo, hi))
    else:
        for j in range(k):
            value = load_i64(values, j) * load_i64(gamma, j) + load_i64(beta, j)
            store_64(values, j, clamp(((value + half) >> n) + y_zp, lo, hi))


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
        store_strided(at(row, _NORM.y), at(row, _NORM.y_type), start, inner, values, k)
