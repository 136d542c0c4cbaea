"""Elementwise kernels: binary, table, requant. They work in blocks of int64 in scratch memory."""

from __future__ import annotations

from ..cpu.jit import jit
from ..instructions.instruction import ISA_COLUMN, SHIFT_BASE, Binary, Element
from ..instructions.opcodes import columns
from ..vector.add_multiply import (
    LEAST_BYTES,
    MOST_BYTES,
    add_byte_byte,
    add_bytes,
    add_last_bytes,
    add_wide_byte,
    add_wide_wide,
    multiply_bytes,
    multiply_wide,
    narrow_wide_byte,
    narrow_wide_wide,
)
from ..vector.byte_tables import HAS_BYTE_LOOKUP, LOOKUP_BYTES, lookup_bytes
from ..vector.line_tables import LINE_CODES, lookup_wide
from ..vector.memory import load_i16, load_i64, load_u8, store_8, store_16, store_64
from ..vector.sum_tiles import LANES, Isa
from .common import (
    BLOCK,
    BLOCK_BYTES,
    at,
    at_or,
    clamp,
    code_block,
    load_block,
    load_terms,
    outer_count,
    outer_offset,
    requant_block,
    rounding,
    size_of,
    store_block,
)

_BINARY, _TABLE, _REQUANT = columns("binary"), columns("table"), columns("requant")
_ADD, _MUL, _DIV, _MIN = int(Binary.ADD), int(Binary.MUL), int(Binary.DIV), int(Binary.MIN)
_U8, _I16 = int(Element.U8), int(Element.I16)
_AVX512, _PLAIN = int(Isa.AVX512_VNNI), int(Isa.PLAIN)
_INT32_MAX = (1 << 31) - 1
_BYTE_CODES = 256
_VECTOR_RUN = 64
"""Elements of a run that is worth a loop of vector code of its own."""
_MOST_BYTES_SHIFT = 38
"""Up to this shift the zero point of a sum of uint8 can be part of it in 32 bits."""
_MOST_SUM_SHIFT = 40
"""Up to this shift a zero point can be part of a sum in 64 bits."""


@jit
def _quotient(a: int, b: int, m: int, n: int, y_zp: int, lo: int, hi: int) -> int:
    numerator, denominator = a * m, b << n
    if denominator < 0:
        numerator, denominator = -numerator, -denominator
    if denominator == 0:
        if numerator == 0:
            return clamp(y_zp, lo, hi)
        return hi if numerator > 0 else lo
    return clamp((2 * numerator + denominator) // (2 * denominator) + y_zp, lo, hi)


@jit
def _divide_block(row: int, a: int, b: int, count: int) -> None:
    m, n = at(row, _BINARY.a_m), at(row, _BINARY.n)
    y_zp, lo, hi = at(row, _BINARY.y_zp), at(row, _BINARY.lo), at(row, _BINARY.hi)
    for i in range(count):
        store_64(a, i, _quotient(load_i64(a, i), load_i64(b, i), m, n, y_zp, lo, hi))


@jit
def _binary_block(row: int, a: int, b: int, count: int) -> None:
    """Codes of one block: a and b hold terms, a receives the result."""
    kind, n, y_zp = at(row, _BINARY.kind), at(row, _BINARY.n), at(row, _BINARY.y_zp)
    lo, hi, half = at(row, _BINARY.lo), at(row, _BINARY.hi), rounding(n)
    if kind == _DIV:
        _divide_block(row, a, b, count)
    elif kind == _ADD:
        for i in range(count):
            store_64(a, i, clamp(((load_i64(a, i) + load_i64(b, i) + half) >> n) + y_zp, lo, hi))
    elif kind == _MUL:
        for i in range(count):
            store_64(a, i, clamp(((load_i64(a, i) * load_i64(b, i) + half) >> n) + y_zp, lo, hi))
    elif kind == _MIN:
        for i in range(count):
            store_64(a, i, clamp(((min(load_i64(a, i), load_i64(b, i)) + half) >> n) + y_zp, lo, hi))
    else:
        for i in range(count):
            store_64(a, i, clamp(((max(load_i64(a, i), load_i64(b, i)) + half) >> n) + y_zp, lo, hi))


@jit
def _load_runs(
    block: int, base: int, element: int, start: int, between: int, step: int, run: int, runs: int, zero: int, m: int
) -> None:
    """The terms of ``runs`` runs of ``run`` elements, ``between`` apart."""
    if step == 1 and between == run:
        load_terms(block, base, element, start, 1, run * runs, zero, m)
        return
    for r in range(runs):
        load_terms(block + 8 * r * run, base, element, start + r * between, step, run, zero, m)


@jit
def _high_half(m: int) -> int:
    """``m = 65536 * high + low`` with low in [-32768, 32767]."""
    return (m + 32768) >> 16


@jit
def _adds_bytes(row: int) -> bool:
    """A dense sum of uint8 that `add_bytes` computes exactly: factors of 16 + 16 bits, constants that fit int32,
    limits of uint8.
    """
    types_fit = at(row, _BINARY.a_type) == _U8 and at(row, _BINARY.b_type) == _U8 and at(row, _BINARY.y_type) == _U8
    dense = at(row, _BINARY.a_s5) == 1 and at(row, _BINARY.b_s5) == 1
    highs = max(abs(_high_half(at(row, _BINARY.a_m))), abs(_high_half(at(row, _BINARY.b_m))))
    numbers_fit = _numbers_are_bytes(row) and highs < 32768 and 16 <= at(row, _BINARY.n) <= _MOST_BYTES_SHIFT
    return types_fit and dense and numbers_fit and at(row, _BINARY.kind) == _ADD and at(row, ISA_COLUMN) != _PLAIN


@jit
def _numbers_are_bytes(row: int) -> bool:
    """Zero points and limits are."""
    lo, hi, a_zp, b_zp = at(row, _BINARY.lo), at(row, _BINARY.hi), at(row, _BINARY.a_zp), at(row, _BINARY.b_zp)
    y_zp = at(row, _BINARY.y_zp)
    return min(lo, hi, a_zp, b_zp, y_zp) >= 0 and max(lo, hi, a_zp, b_zp, y_zp) < 256


@jit
def _add_bytes(row: int, y: int, a: int, b: int, count: int) -> None:
    """``count`` codes, whole vectors of the shortest."""
    a_m, b_m, n, y_zp = at(row, _BINARY.a_m), at(row, _BINARY.b_m), at(row, _BINARY.n), at(row, _BINARY.y_zp)
    a_high, b_high = _high_half(a_m), _high_half(b_m)
    a_low, b_low = a_m - a_high * 65536, b_m - b_high * 65536
    c = rounding(n) - at(row, _BINARY.a_zp) * a_m - at(row, _BINARY.b_zp) * b_m + (y_zp << n)
    high, low = b_high * 65536 + (a_high & 0xFFFF), b_low * 65536 + (a_low & 0xFFFF)
    lo, hi, whole = at(row, _BINARY.lo), at(row, _BINARY.hi), count // MOST_BYTES
    add_bytes(y, a, b, whole, high, low, c >> 16, c & 0xFFFF, n - 16, lo, hi)
    first = whole * MOST_BYTES
    add_last_bytes(
        y + first, a + first, b + first, (count - first) // LEAST_BYTES, high, low, c >> 16, c & 0xFFFF, n - 16, lo, hi
    )


@jit
def _adds_wide(row: int) -> bool:
    """A dense sum with int16 among its codes."""
    coded = (
        at(row, _BINARY.a_type) in (_U8, _I16)
        and at(row, _BINARY.b_type) in (_U8, _I16)
        and at(row, _BINARY.y_type) in (_U8, _I16)
    )
    wide = at(row, _BINARY.a_type) == _I16 or at(row, _BINARY.b_type) == _I16 or at(row, _BINARY.y_type) == _I16
    dense = at(row, _BINARY.a_s5) == 1 and at(row, _BINARY.b_s5) == 1
    return (
        coded
        and wide
        and dense
        and at(row, _BINARY.n) <= _MOST_SUM_SHIFT
        and at(row, _BINARY.kind) == _ADD
        and at(row, ISA_COLUMN) != _PLAIN
    )


@jit
def _add_wide(row: int, y: int, a: int, b: int, blocks: int) -> None:
    a_m, b_m, n, y_zp = at(row, _BINARY.a_m), at(row, _BINARY.b_m), at(row, _BINARY.n), at(row, _BINARY.y_zp)
    c = rounding(n) - at(row, _BINARY.a_zp) * a_m - at(row, _BINARY.b_zp) * b_m + (y_zp << n)
    lo, hi, a_wide, b_wide = (
        at(row, _BINARY.lo),
        at(row, _BINARY.hi),
        at(row, _BINARY.a_type) == _I16,
        at(row, _BINARY.b_type) == _I16,
    )
    if b_wide and not a_wide:
        a, b, a_m, b_m, a_wide, b_wide = b, a, b_m, a_m, True, False
    if at(row, _BINARY.y_type) == _I16:
        if b_wide:
            add_wide_wide(y, a, b, blocks, a_m, b_m, c, n, lo, hi)
        elif a_wide:
            add_wide_byte(y, a, b, blocks, a_m, b_m, c, n, lo, hi)
        else:
            add_byte_byte(y, a, b, blocks, a_m, b_m, c, n, lo, hi)
    elif b_wide:
        narrow_wide_wide(y, a, b, blocks, a_m, b_m, c, n, lo, hi)
    else:
        narrow_wide_byte(y, a, b, blocks, a_m, b_m, c, n, lo, hi)


@jit
def _multiplies_wide(row: int) -> bool:
    """A dense product of int16."""
    wide = at(row, _BINARY.a_type) == _I16 and at(row, _BINARY.b_type) == _I16 and at(row, _BINARY.y_type) == _I16
    dense = at(row, _BINARY.a_s5) == 1 and at(row, _BINARY.b_s5) == 1
    return (
        wide
        and dense
        and at(row, _BINARY.kind) == _MUL
        and at(row, _BINARY.y_zp) == 0
        and at(row, ISA_COLUMN) != _PLAIN
    )


@jit
def _multiply_wide(row: int, y: int, a: int, b: int, blocks: int) -> None:
    n = at(row, _BINARY.n)
    multiply_wide(
        y,
        a,
        b,
        blocks,
        at(row, _BINARY.a_zp),
        at(row, _BINARY.b_zp),
        at(row, _BINARY.a_m),
        rounding(n),
        n,
        at(row, _BINARY.lo),
        at(row, _BINARY.hi),
    )


@jit
def _multiplies_bytes(row: int) -> bool:
    """A dense product of uint8 of which the upper half of a product by the factor is enough."""
    types_fit = at(row, _BINARY.a_type) == _U8 and at(row, _BINARY.b_type) == _U8 and at(row, _BINARY.y_type) == _U8
    dense = at(row, _BINARY.a_s5) == 1 and at(row, _BINARY.b_s5) == 1
    numbers_fit = _numbers_are_bytes(row) and at(row, _BINARY.n) >= SHIFT_BASE
    return types_fit and dense and numbers_fit and at(row, _BINARY.kind) == _MUL and at(row, ISA_COLUMN) != _PLAIN


@jit
def _multiply_bytes(row: int, y: int, a: int, b: int, blocks: int) -> None:
    a_zp, b_zp, m, n = at(row, _BINARY.a_zp), at(row, _BINARY.b_zp), at(row, _BINARY.a_m), at(row, _BINARY.n)
    y_zp, lo, hi = at(row, _BINARY.y_zp), at(row, _BINARY.lo), at(row, _BINARY.hi)
    multiply_bytes(y, a, b, blocks, a_zp, b_zp, m, 1 << (n - SHIFT_BASE), n - 32, y_zp, lo, hi)


@jit
def _dense_run(row: int, y_start: int, a_start: int, b_start: int, run: int) -> int:
    """The elements of a run that vector code of their own has computed."""
    a = at(row, _BINARY.a) + a_start * size_of(at(row, _BINARY.a_type))
    b = at(row, _BINARY.b) + b_start * size_of(at(row, _BINARY.b_type))
    y, whole = at(row, _BINARY.y) + y_start * size_of(at(row, _BINARY.y_type)), run // LANES
    if run >= MOST_BYTES and _multiplies_bytes(row):
        last = run - MOST_BYTES  # the last vector overlaps its neighbour
        _multiply_bytes(row, y, a, b, run // MOST_BYTES)
        _multiply_bytes(row, y + last, a + last, b + last, 1)
        return run
    if _adds_bytes(row):
        _add_bytes(row, y, a, b, whole * LANES)
    elif _adds_wide(row):
        _add_wide(row, y, a, b, whole)
    elif _multiplies_wide(row):
        _multiply_wide(row, y, a, b, whole)
    else:
        return 0
    return whole * LANES


@jit
def _binary_runs(row: int, scratch: int, y_start: int, a_start: int, b_start: int, runs: int) -> None:
    """``runs`` runs along the innermost dimension, or as many pieces of one."""
    run, kind = at(row, _BINARY.d5), at(row, _BINARY.kind)
    a, a_type, a_row, a_step = at(row, _BINARY.a), at(row, _BINARY.a_type), at(row, _BINARY.a_s4), at(row, _BINARY.a_s5)
    b, b_type, b_row, b_step = at(row, _BINARY.b), at(row, _BINARY.b_type), at(row, _BINARY.b_s4), at(row, _BINARY.b_s5)
    a_zp, a_m = at(row, _BINARY.a_zp), 1 if kind == _DIV else at(row, _BINARY.a_m)
    b_zp, b_m = at(row, _BINARY.b_zp), 1 if kind in (_MUL, _DIV) else at(row, _BINARY.b_m)
    first = _dense_run(row, y_start, a_start, b_start, run) if runs == 1 and run >= LANES else 0
    while first < run:
        count = run if runs > 1 else min(BLOCK, run - first)
        _load_runs(scratch, a, a_type, a_start + first * a_step, a_row, a_step, count, runs, a_zp, a_m)
        _load_runs(scratch + BLOCK_BYTES, b, b_type, b_start + first * b_step, b_row, b_step, count, runs, b_zp, b_m)
        _binary_block(row, scratch, scratch + BLOCK_BYTES, count * runs)
        store_block(at(row, _BINARY.y), at(row, _BINARY.y_type), y_start + first, scratch, count * runs)
        first += count


@jit
def binary(row: int, scratch: int) -> None:
    """add, mul, div, min, max with broadcasting; short runs share a block."""
    run, lines = at(row, _BINARY.d5), at(row, _BINARY.d4)
    if run == 0 or lines == 0:
        return
    together = min(max(BLOCK // run, 1), lines)
    if run >= _VECTOR_RUN and (
        _adds_bytes(row) or _adds_wide(row) or _multiplies_wide(row) or _multiplies_bytes(row)
    ):
        together = 1
    for outer in range(outer_count(row, _BINARY.d0) // lines):
        a_start = outer_offset(row, _BINARY.d0, _BINARY.a_s0, outer * lines)
        b_start = outer_offset(row, _BINARY.d0, _BINARY.b_s0, outer * lines)
        for line in range(0, lines, together):
            a, b = a_start + line * at(row, _BINARY.a_s4), b_start + line * at(row, _BINARY.b_s4)
            _binary_runs(row, scratch, (outer * lines + line) * run, a, b, min(together, lines - line))


@jit
def _look_up(row: int, y: int, x: int, entries: int, count: int) -> None:
    """``y[i] = entries[x[i]]`` on bytes."""
    whole = count // LOOKUP_BYTES if HAS_BYTE_LOOKUP and at(row, ISA_COLUMN) == _AVX512 else 0
    lookup_bytes(y, x, entries, whole)
    if whole > 0:  # the last bytes overlap their neighbours
        lookup_bytes(y + count - LOOKUP_BYTES, x + count - LOOKUP_BYTES, entries, 1)
        return
    for i in range(whole * LOOKUP_BYTES, count):
        store_8(y, i, load_u8(entries, load_u8(x, i)))


@jit
def table(row: int, scratch: int) -> None:
    """``y = table[x - type_min]``."""
    x, entries, y, count = at(row, _TABLE.x), at(row, _TABLE.table), at(row, _TABLE.y), at(row, _TABLE.count)
    wide_x, wide_y = at(row, _TABLE.x_type) == _I16, at(row, _TABLE.y_type) == _I16
    if wide_x and wide_y:
        for i in range(count):
            store_16(y, i, load_i16(entries, load_i16(x, i) + 32768))
    elif wide_x:
        for i in range(count):
            store_8(y, i, load_u8(entries, load_i16(x, i) + 32768))
    elif wide_y:
        done = count // LINE_CODES * LINE_CODES if at(row, ISA_COLUMN) == _AVX512 else 0
        lookup_wide(y, x, entries, done // LINE_CODES)
        for i in range(done, count):
            store_16(y, i, load_i16(entries, load_u8(x, i)))
    else:
        _look_up(row, y, x, entries, count)


@jit
def _requantize_block(row: int, block: int, count: int) -> None:
    """int64 values of a block become codes."""
    zero_point = at(row, _REQUANT.x_zp)
    for i in range(count):
        store_64(block, i, clamp(load_i64(block, i), -_INT32_MAX - 1, _INT32_MAX) - zero_point)
    requant_block(block, count, at(row, _REQUANT.m), at(row, _REQUANT.n))
    code_block(block, count, at(row, _REQUANT.y_zp), at(row, _REQUANT.lo), at(row, _REQUANT.hi))


@jit
def _requantize_bytes(row: int, scratch: int, lines: int, pitch: int) -> None:
    """From uint8 to uint8 by the table of all codes."""
    for i in range(_BYTE_CODES):
        store_64(scratch, i, i)
    _requantize_block(row, scratch, _BYTE_CODES)
    entries, count = scratch + BLOCK_BYTES, at(row, _REQUANT.count)
    store_block(entries, _U8, 0, scratch, _BYTE_CODES)
    for line in range(lines):
        _look_up(
            row,
            at(row, _REQUANT.y) + at(row, _REQUANT.y_offset) + line * pitch,
            at(row, _REQUANT.x) + line * count,
            entries,
            count,
        )


@jit
def requantize(row: int, scratch: int) -> None:
    """``out(requant(clip(x) - x_zp, m, n))``; the clip to int32 never changes a code."""
    x, y, total, lines = (
        at(row, _REQUANT.x),
        at(row, _REQUANT.y),
        at(row, _REQUANT.count),
        max(at(row, _REQUANT.lines), 1),
    )
    pitch = at_or(row, _REQUANT.y_pitch, total)
    if at(row, _REQUANT.x_type) == _U8 and at(row, _REQUANT.y_type) == _U8 and total * lines >= _BYTE_CODES:
        _requantize_bytes(row, scratch, lines, pitch)
        return
    for line in range(lines if total > 0 else 0):
        for first in range(0, total, BLOCK):
            count = min(BLOCK, total - first)
            load_block(scratch, x, at(row, _REQUANT.x_type), line * total + first, 1, count)
            _requantize_block(row, scratch, count)
            store_block(y, at(row, _REQUANT.y_type), at(row, _REQUANT.y_offset) + line * pitch + first, scratch, count)
