"""Kernels of truth values: where, compare, logic."""

from __future__ import annotations

from ..cpu.jit import jit
from ..instructions.instruction import Comparison, Logic
from ..instructions.opcodes import columns
from ..vector.memory import load_i64, load_u8, store_8, store_64
from .common import (
    BLOCK,
    BLOCK_BYTES,
    at,
    clamp,
    load_block,
    load_terms,
    outer_count,
    outer_offset,
    rounding,
    store_block,
)

_WHERE, _COMPARE, _LOGIC = columns("where"), columns("compare"), columns("logic")
_LESS, _LESS_EQUAL, _GREATER, _GREATER_EQUAL = (int(Comparison(i)) for i in range(4))
_NOT, _AND, _OR = int(Logic.NOT), int(Logic.AND), int(Logic.OR)


@jit
def where(row: int, scratch: int) -> None:
    """The scaled term of a where c is true, else that of b."""
    c_block, a_block, b_block = scratch, scratch + BLOCK_BYTES, scratch + 2 * BLOCK_BYTES
    run = at(row, _WHERE.d5)
    c_step, a_step, b_step = at(row, _WHERE.c_s5), at(row, _WHERE.a_s5), at(row, _WHERE.b_s5)
    a_zp, a_m, b_zp, b_m = at(row, _WHERE.a_zp), at(row, _WHERE.a_m), at(row, _WHERE.b_zp), at(row, _WHERE.b_m)
    for outer in range(outer_count(row, _WHERE.d0)):
        c_start = outer_offset(row, _WHERE.d0, _WHERE.c_s0, outer)
        a_start = outer_offset(row, _WHERE.d0, _WHERE.a_s0, outer)
        b_start = outer_offset(row, _WHERE.d0, _WHERE.b_s0, outer)
        for first in range(0, run, BLOCK):
            count, a_first, b_first = min(BLOCK, run - first), a_start + first * a_step, b_start + first * b_step
            load_block(c_block, at(row, _WHERE.c), at(row, _WHERE.c_type), c_start + first * c_step, c_step, count)
            load_terms(a_block, at(row, _WHERE.a), at(row, _WHERE.a_type), a_first, a_step, count, a_zp, a_m)
            load_terms(b_block, at(row, _WHERE.b), at(row, _WHERE.b_type), b_first, b_step, count, b_zp, b_m)
            _choose(row, c_block, a_block, b_block, count)
            store_block(at(row, _WHERE.y), at(row, _WHERE.y_type), outer * run + first, a_block, count)


@jit
def _choose(row: int, c: int, a: int, b: int, count: int) -> None:
    """Codes of one block: a receives the result."""
    n, y_zp, lo, hi = at(row, _WHERE.n), at(row, _WHERE.y_zp), at(row, _WHERE.lo), at(row, _WHERE.hi)
    half = rounding(n)
    for i in range(count):  # a mask, as LLVM would choose between addresses, which is no vector code
        mask, other = -1 if load_i64(c, i) != 0 else 0, load_i64(b, i)
        value = other ^ ((load_i64(a, i) ^ other) & mask)
        store_64(a, i, clamp(((value + half) >> n) + y_zp, lo, hi))


@jit
def _compare_block(kind: int, y: int, a: int, b: int, count: int) -> None:
    """Truth values of one block of terms."""
    if kind in (_GREATER, _GREATER_EQUAL):
        a, b = b, a
    if kind in (_LESS, _GREATER):
        for i in range(count):
            store_8(y, i, 1 if load_i64(a, i) < load_i64(b, i) else 0)
    elif kind in (_LESS_EQUAL, _GREATER_EQUAL):
        for i in range(count):
            store_8(y, i, 1 if load_i64(a, i) <= load_i64(b, i) else 0)
    else:
        for i in range(count):
            store_8(y, i, 1 if load_i64(a, i) == load_i64(b, i) else 0)


@jit
def compare(row: int, scratch: int) -> None:
    """Exact comparison of the scaled terms."""
    a_block, b_block, run = scratch, scratch + BLOCK_BYTES, at(row, _COMPARE.d5)
    a_step, b_step = at(row, _COMPARE.a_s5), at(row, _COMPARE.b_s5)
    a_zp, a_m, b_zp, b_m = at(row, _COMPARE.a_zp), at(row, _COMPARE.a_m), at(row, _COMPARE.b_zp), at(row, _COMPARE.b_m)
    for outer in range(outer_count(row, _COMPARE.d0)):
        a_start = outer_offset(row, _COMPARE.d0, _COMPARE.a_s0, outer)
        b_start = outer_offset(row, _COMPARE.d0, _COMPARE.b_s0, outer)
        for first in range(0, run, BLOCK):
            count, a_first, b_first = min(BLOCK, run - first), a_start + first * a_step, b_start + first * b_step
            load_terms(a_block, at(row, _COMPARE.a), at(row, _COMPARE.a_type), a_first, a_step, count, a_zp, a_m)
            load_terms(b_block, at(row, _COMPARE.b), at(row, _COMPARE.b_type), b_first, b_step, count, b_zp, b_m)
            _compare_block(at(row, _COMPARE.kind), at(row, _COMPARE.y) + outer * run + first, a_block, b_block, count)


@jit
def _dense_truths(block: int, base: int, start: int, step: int, count: int) -> int:
    """Where ``count`` truth values lie side by side: where they are, or in ``block``."""
    if step == 1:
        return base + start
    for i in range(count):
        store_8(block, i, load_u8(base, start + i * step))
    return block


@jit
def _combine(kind: int, y: int, a: int, b: int, count: int) -> None:
    """Every function of two bits is a sum modulo 2 of 1, a, b and their product, or of some of these."""
    one, first = 1 if kind == _NOT else 0, 0 if kind == _AND else 1
    second, product = 0 if kind in (_NOT, _AND) else 1, 1 if kind in (_AND, _OR) else 0
    for i in range(count):
        p, q = 1 if load_u8(a, i) != 0 else 0, 1 if load_u8(b, i) != 0 else 0
        store_8(y, i, one ^ (p & first) ^ (q & second) ^ (p & q & product))


@jit
def logic(row: int, scratch: int) -> None:
    """not, and, or, xor of booleans."""
    run, a_step, b_step = at(row, _LOGIC.d5), at(row, _LOGIC.a_s5), at(row, _LOGIC.b_s5)
    for outer in range(outer_count(row, _LOGIC.d0)):
        a_start = outer_offset(row, _LOGIC.d0, _LOGIC.a_s0, outer)
        b_start = outer_offset(row, _LOGIC.d0, _LOGIC.b_s0, outer)
        for first in range(0, run, BLOCK_BYTES):
            count = min(BLOCK_BYTES, run - first)
            a = _dense_truths(scratch, at(row, _LOGIC.a), a_start + first * a_step, a_step, count)
            b = _dense_truths(scratch + BLOCK_BYTES, at(row, _LOGIC.b), b_start + first * b_step, b_step, count)
            _combine(at(row, _LOGIC.kind), at(row, _LOGIC.y) + outer * run + first, a, b, count)
