"""Elementwise kernels: binary, where, compare, logic, table, requant, cast. They work in blocks of int64 in scratch memory."""

from __future__ import annotations

from ..instruction import ISA_COLUMN, Binary, Comparison, Element, Logic
from ..jit import jit
from ..memory import load_i16, load_i64, load_u8, store_8, store_16, store_64
from ..opcodes import columns
from ..simd import Isa
from ..vectors import HAS_BYTE_LOOKUP, LOOKUP_BYTES, lookup_bytes
from .common import (
    BLOCK,
    BLOCK_BYTES,
    at,
    clamp,
    code_block,
    fetch,
    load_block,
    outer_count,
    outer_offset,
    requant_block,
    store_block,
)

_BINARY, _WHERE, _COMPARE, _LOGIC = columns("binary"), columns("where"), columns("compare"), columns("logic")
_TABLE, _REQUANT, _CAST = columns("table"), columns("requant"), columns("cast")
_ADD, _MUL, _DIV, _MIN = int(Binary.ADD), int(Binary.MUL), int(Binary.DIV), int(Binary.MIN)
_LESS, _LESS_EQUAL, _GREATER, _GREATER_EQUAL = (int(Comparison(i)) for i in range(4))
_NOT, _AND, _OR = int(Logic.NOT), int(Logic.AND), int(Logic.OR)
_U8, _I16, _BOOL = int(Element.U8), int(Element.I16), int(Element.BOOL)
_AVX512 = int(Isa.AVX512_VNNI)
_INT32_MAX = (1 << 31) - 1


@jit
def _scale_block(block: int, count: int, zero_point: int, m: int) -> None:
    for i in range(count):
        store_64(block, i, (load_i64(block, i) - zero_point) * m)


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
    a_zp, b_zp, m, n = at(row, _BINARY.a_zp), at(row, _BINARY.b_zp), at(row, _BINARY.a_m), at(row, _BINARY.n)
    y_zp, lo, hi = at(row, _BINARY.y_zp), at(row, _BINARY.lo), at(row, _BINARY.hi)
    for i in range(count):
        store_64(a, i, _quotient(load_i64(a, i) - a_zp, load_i64(b, i) - b_zp, m, n, y_zp, lo, hi))


@jit
def _combine_block(kind: int, a: int, b: int, count: int) -> None:
    if kind == _ADD:
        for i in range(count):
            store_64(a, i, load_i64(a, i) + load_i64(b, i))
    elif kind == _MIN:
        for i in range(count):
            store_64(a, i, min(load_i64(a, i), load_i64(b, i)))
    else:
        for i in range(count):
            store_64(a, i, max(load_i64(a, i), load_i64(b, i)))


@jit
def _binary_block(row: int, a: int, b: int, count: int) -> None:
    """Codes of one block: a and b hold codes, a receives the result."""
    kind, n = at(row, _BINARY.kind), at(row, _BINARY.n)
    if kind == _DIV:
        _divide_block(row, a, b, count)
        return
    _scale_block(a, count, at(row, _BINARY.a_zp), 1 if kind == _MUL else at(row, _BINARY.a_m))
    _scale_block(b, count, at(row, _BINARY.b_zp), 1 if kind == _MUL else at(row, _BINARY.b_m))
    if kind == _MUL:
        for i in range(count):
            store_64(a, i, load_i64(a, i) * load_i64(b, i))
        requant_block(a, count, at(row, _BINARY.a_m), n)
    else:
        _combine_block(kind, a, b, count)
        requant_block(a, count, 1, n)
    code_block(a, count, at(row, _BINARY.y_zp), at(row, _BINARY.lo), at(row, _BINARY.hi))


@jit
def binary(row: int, scratch: int) -> None:
    """add, mul, div, min, max with broadcasting."""
    a_block, b_block = scratch, scratch + BLOCK_BYTES
    run = at(row, _BINARY.d5)
    for outer in range(outer_count(row, _BINARY.d0)):
        a_start = outer_offset(row, _BINARY.d0, _BINARY.a_s0, outer)
        b_start = outer_offset(row, _BINARY.d0, _BINARY.b_s0, outer)
        a_step, b_step = at(row, _BINARY.a_s5), at(row, _BINARY.b_s5)
        for first in range(0, run, BLOCK):
            count = min(BLOCK, run - first)
            load_block(a_block, at(row, _BINARY.a), at(row, _BINARY.a_type), a_start + first * a_step, a_step, count)
            load_block(b_block, at(row, _BINARY.b), at(row, _BINARY.b_type), b_start + first * b_step, b_step, count)
            _binary_block(row, a_block, b_block, count)
            store_block(at(row, _BINARY.y), at(row, _BINARY.y_type), outer * run + first, a_block, count)


@jit
def where(row: int, scratch: int) -> None:
    """The scaled term of a where c is true, else that of b."""
    c_block, a_block, b_block = scratch, scratch + BLOCK_BYTES, scratch + 2 * BLOCK_BYTES
    run = at(row, _WHERE.d5)
    c_step, a_step, b_step = at(row, _WHERE.c_s5), at(row, _WHERE.a_s5), at(row, _WHERE.b_s5)
    for outer in range(outer_count(row, _WHERE.d0)):
        c_start = outer_offset(row, _WHERE.d0, _WHERE.c_s0, outer)
        a_start = outer_offset(row, _WHERE.d0, _WHERE.a_s0, outer)
        b_start = outer_offset(row, _WHERE.d0, _WHERE.b_s0, outer)
        for first in range(0, run, BLOCK):
            count = min(BLOCK, run - first)
            load_block(c_block, at(row, _WHERE.c), at(row, _WHERE.c_type), c_start + first * c_step, c_step, count)
            load_block(a_block, at(row, _WHERE.a), at(row, _WHERE.a_type), a_start + first * a_step, a_step, count)
            load_block(b_block, at(row, _WHERE.b), at(row, _WHERE.b_type), b_start + first * b_step, b_step, count)
            _scale_block(a_block, count, at(row, _WHERE.a_zp), at(row, _WHERE.a_m))
            _scale_block(b_block, count, at(row, _WHERE.b_zp), at(row, _WHERE.b_m))
            for i in range(count):
                store_64(a_block, i, load_i64(a_block, i) if load_i64(c_block, i) != 0 else load_i64(b_block, i))
            requant_block(a_block, count, 1, at(row, _WHERE.n))
            code_block(a_block, count, at(row, _WHERE.y_zp), at(row, _WHERE.lo), at(row, _WHERE.hi))
            store_block(at(row, _WHERE.y), at(row, _WHERE.y_type), outer * run + first, a_block, count)


@jit
def _compare_one(kind: int, a: int, b: int) -> int:
    if kind == _LESS:
        return 1 if a < b else 0
    if kind == _LESS_EQUAL:
        return 1 if a <= b else 0
    if kind == _GREATER:
        return 1 if a > b else 0
    if kind == _GREATER_EQUAL:
        return 1 if a >= b else 0
    return 1 if a == b else 0


@jit
def compare(row: int, scratch: int) -> None:
    """Exact comparison of the scaled terms."""
    kind, run = at(row, _COMPARE.kind), at(row, _COMPARE.d5)
    a, b, y = at(row, _COMPARE.a), at(row, _COMPARE.b), at(row, _COMPARE.y)
    for outer in range(outer_count(row, _COMPARE.d0)):
        a_start = outer_offset(row, _COMPARE.d0, _COMPARE.a_s0, outer)
        b_start = outer_offset(row, _COMPARE.d0, _COMPARE.b_s0, outer)
        for i in range(run):
            left = fetch(a, at(row, _COMPARE.a_type), a_start + i * at(row, _COMPARE.a_s5)) - at(row, _COMPARE.a_zp)
            right = fetch(b, at(row, _COMPARE.b_type), b_start + i * at(row, _COMPARE.b_s5)) - at(row, _COMPARE.b_zp)
            store_8(y, outer * run + i, _compare_one(kind, left * at(row, _COMPARE.a_m), right * at(row, _COMPARE.b_m)))


@jit
def _logic_one(kind: int, a: int, b: int) -> int:
    if kind == _NOT:
        return 1 if a == 0 else 0
    if kind == _AND:
        return 1 if a != 0 and b != 0 else 0
    if kind == _OR:
        return 1 if a != 0 or b != 0 else 0
    return 1 if (a != 0) != (b != 0) else 0


@jit
def logic(row: int, scratch: int) -> None:
    """not, and, or, xor of booleans."""
    kind, run = at(row, _LOGIC.kind), at(row, _LOGIC.d5)
    a, b, y = at(row, _LOGIC.a), at(row, _LOGIC.b), at(row, _LOGIC.y)
    for outer in range(outer_count(row, _LOGIC.d0)):
        a_start = outer_offset(row, _LOGIC.d0, _LOGIC.a_s0, outer)
        b_start = outer_offset(row, _LOGIC.d0, _LOGIC.b_s0, outer)
        for i in range(run):
            left, right = load_u8(a, a_start + i * at(row, _LOGIC.a_s5)), load_u8(b, b_start + i * at(row, _LOGIC.b_s5))
            store_8(y, outer * run + i, _logic_one(kind, left, right))


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
        for i in range(count):
            store_16(y, i, load_i16(entries, load_u8(x, i)))
    else:
        whole = count // LOOKUP_BYTES if HAS_BYTE_LOOKUP and at(row, ISA_COLUMN) == _AVX512 else 0
        lookup_bytes(y, x, entries, whole)
        for i in range(whole * LOOKUP_BYTES, count):
            store_8(y, i, load_u8(entries, load_u8(x, i)))


@jit
def requantize(row: int, scratch: int) -> None:
    """``out(requant(clip(x) - x_zp, m, n))``; the clip to int32 never changes a code."""
    x, y, total = at(row, _REQUANT.x), at(row, _REQUANT.y), at(row, _REQUANT.count)
    zero_point = at(row, _REQUANT.x_zp)
    for first in range(0, total, BLOCK):
        count = min(BLOCK, total - first)
        load_block(scratch, x, at(row, _REQUANT.x_type), first, 1, count)
        for i in range(count):
            store_64(scratch, i, clamp(load_i64(scratch, i), -_INT32_MAX - 1, _INT32_MAX) - zero_point)
        requant_block(scratch, count, at(row, _REQUANT.m), at(row, _REQUANT.n))
        code_block(scratch, count, at(row, _REQUANT.y_zp), at(row, _REQUANT.lo), at(row, _REQUANT.hi))
        store_block(y, at(row, _REQUANT.y_type), first, scratch, count)


@jit
def cast(row: int, scratch: int) -> None:
    """Integer conversion that wraps; to bool: is it non-zero."""
    x, y, total = at(row, _CAST.x), at(row, _CAST.y), at(row, _CAST.count)
    to_bool = at(row, _CAST.y_type) == _BOOL
    for first in range(0, total, BLOCK):
        count = min(BLOCK, total - first)
        load_block(scratch, x, at(row, _CAST.x_type), first, 1, count)
        if to_bool:
            for i in range(count):
                store_64(scratch, i, 1 if load_i64(scratch, i) != 0 else 0)
        store_block(y, at(row, _CAST.y_type), first, scratch, count)
