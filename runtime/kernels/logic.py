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
    code_block,
    fetch,
    load_block,
    outer_count,
    outer_offset,
    requant_block,
    scale_block,
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
    for outer in range(outer_count(row, _WHERE.d0)):
        c_start = outer_offset(row, _WHERE.d0, _WHERE.c_s0, outer)
        a_start = outer_offset(row, _WHERE.d0, _WHERE.a_s0, outer)
        b_start = outer_offset(row, _WHERE.d0, _WHERE.b_s0, outer)
        for first in range(0, run, BLOCK):
            count = min(BLOCK, run - first)
            load_block(c_block, at(row, _WHERE.c), at(row, _WHERE.c_type), c_start + first * c_step, c_step, count)
            load_block(a_block, at(row, _WHERE.a), at(row, _WHERE.a_type), a_start + first * a_step, a_step, count)
            load_block(b_block, at(row, _WHERE.b), at(row, _WHERE.b_type), b_start + first * b_step, b_step, count)
            scale_block(a_block, count, at(row, _WHERE.a_zp), at(row, _WHERE.a_m))
            scale_block(b_block, count, at(row, _WHERE.b_zp), at(row, _WHERE.b_m))
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
