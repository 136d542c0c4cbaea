"""Products of two activations on register tiles: both sides become int16 without zero points, b packed in scratch
memory.
"""

from __future__ import annotations

from ..cpu.jit import jit
from ..instructions.instruction import BLOCK_COLUMNS, BLOCK_ROWS, ISA_COLUMN, TILE_BYTES, ZERO_BYTES, Element
from ..instructions.opcodes import columns
from ..vector.memory import load_i16, load_i32, load_u8, store_8, store_16, store_32
from ..vector.sum_tiles import LANES, TILE_ROWS
from .common import BLOCK_BYTES, BLOCKS, at, clamp, fetch, put, rounding, size_of
from .product import batch_offset
from .tiles import group_size, point_rows, run_wide

_MATMUL = columns("matmul")
_U8, _I16 = int(Element.U8), int(Element.I16)
_PAIR_BYTES = 4
_STEP_BYTES = LANES * _PAIR_BYTES


@jit
def is_wide(row: int) -> bool:
    """Sums fit int32 (the lowering has proved it), and codes without their zero points fit int16."""
    a_fits = at(row, _MATMUL.a_type) == _U8 or at(row, _MATMUL.a_zp) == 0
    b_fits = at(row, _MATMUL.b_type) == _U8 or at(row, _MATMUL.b_zp) == 0
    return at(row, _MATMUL.acc64) == 0 and at(row, ISA_COLUMN) != 0 and a_fits and b_fits


@jit
def _centred(base: int, element: int, index: int, zero_point: int) -> int:
    return fetch(base, element, index) - zero_point


@jit
def pack_rows(
    target: int, base: int, element: int, zero_point: int, strides: tuple[int, int], rows: int, k: int, steps: int
) -> None:
    """Rows of a as int16, each padded with a zero to whole pairs; ``strides``: between rows and within a row, in
    elements.
    """
    for r in range(rows):
        line, start = target + r * steps * _PAIR_BYTES, base + r * strides[0] * size_of(element)
        if strides[1] == 1 and element == _U8:
            for i in range(k):
                store_16(line, i, load_u8(start, i) - zero_point)
        elif strides[1] == 1:
            for i in range(k):
                store_16(line, i, load_i16(start, i) - zero_point)
        else:
            for i in range(k):
                store_16(line, i, _centred(start, element, i * strides[1], zero_point))
        for i in range(k, 2 * steps):
            store_16(line, i, 0)


@jit
def _pack_pair(target: int, first: int, second: int, element: int, zero_point: int, count: int) -> None:
    """Two dense rows of b, interleaved."""
    if element == _U8:
        for j in range(count):
            store_32(target, j, ((load_u8(first, j) - zero_point) & 0xFFFF) | ((load_u8(second, j) - zero_point) << 16))
    else:
        for j in range(count):
            store_32(target, j, (load_i16(first, j) & 0xFFFF) | (load_i16(second, j) << 16))


@jit
def _pack_columns(target: int, base: int, element: int, zero_point: int, between: int, count: int, k: int) -> None:
    """A panel whose columns lie densely, ``between`` bytes apart."""
    for j in range(count):
        column, line = base + j * between, target + j * _PAIR_BYTES
        if element == _I16:
            for pair in range(k // 2):
                store_32(line, pair * LANES, load_i32(column, pair))
        else:
            for pair in range(k // 2):
                low, high = load_u8(column, 2 * pair) - zero_point, load_u8(column, 2 * pair + 1) - zero_point
                store_32(line, pair * LANES, (low & 0xFFFF) | (high << 16))
        if k % 2 == 1:
            store_32(line, k // 2 * LANES, _centred(column, element, k - 1, zero_point) & 0xFFFF)


@jit
def _pack_panel(
    target: int, base: int, element: int, zero_point: int, strides: tuple[int, int], count: int, k: int
) -> None:
    """One panel of up to 16 columns of b; ``strides``: between rows and between columns, in elements."""
    size = size_of(element)
    if strides[0] == 1:
        _pack_columns(target, base, element, zero_point, strides[1] * size, count, k)
        return
    for pair in range(k // 2):
        line, start = target + pair * _STEP_BYTES, base + 2 * pair * strides[0] * size
        if strides[1] == 1:
            _pack_pair(line, start, start + strides[0] * size, element, zero_point, count)
            continue
        for j in range(count):
            low = _centred(start, element, j * strides[1], zero_point)
            high = _centred(start, element, j * strides[1] + strides[0], zero_point)
            store_32(line, j, (low & 0xFFFF) | (high << 16))
    if k % 2 == 1:
        line, start = target + k // 2 * _STEP_BYTES, base + (k - 1) * strides[0] * size
        for j in range(count):
            store_32(line, j, _centred(start, element, j * strides[1], zero_point) & 0xFFFF)


@jit
def _store_codes(row: int, acc: int, start: int, count: int) -> None:
    """Requantize one row of int32 sums into y, from element ``start`` on."""
    m, n, y, step = at(row, _MATMUL.m), at(row, _MATMUL.n), at(row, _MATMUL.y), at(row, _MATMUL.y_col)
    half, element = rounding(n), at(row, _MATMUL.y_type)
    y_zp, lo, hi = at(row, _MATMUL.y_zp), at(row, _MATMUL.lo), at(row, _MATMUL.hi)
    if step == 1 and element == _U8:
        for j in range(count):
            store_8(y, start + j, clamp(((load_i32(acc, j) * m + half) >> n) + y_zp, lo, hi))
    elif step == 1:
        for j in range(count):
            store_16(y + 2 * start, j, clamp(((load_i32(acc, j) * m + half) >> n) + y_zp, lo, hi))
    else:
        for j in range(count):
            put(y, element, start + j * step, clamp(((load_i32(acc, j) * m + half) >> n) + y_zp, lo, hi))


@jit
def _multiply_rows(row: int, scratch: int, a_panel: int, b_panel: int, y_start: int, rows: int, width: int) -> None:
    """A block of packed rows times the packed columns; codes go to y from element ``y_start`` on."""
    acc = scratch + BLOCKS * BLOCK_BYTES
    isa, steps = at(row, ISA_COLUMN), (at(row, _MATMUL.k) + 1) // 2
    panels, panel_bytes, zeros = (width + LANES - 1) // LANES, steps * _STEP_BYTES, acc + TILE_BYTES
    point_rows(scratch, a_panel, steps * _PAIR_BYTES, rows)
    first = 0
    while first < panels:
        group = group_size(isa, panels - first)
        count = min(group * LANES, width - first * LANES)
        for top in range(0, rows, TILE_ROWS):
            left = min(TILE_ROWS, rows - top)
            run_wide(
                isa,
                group,
                TILE_ROWS,
                scratch + 8 * top,
                zeros,
                b_panel + first * panel_bytes,
                panel_bytes,
                steps,
                zeros,
                zeros,
                acc,
            )
            for r in range(left):
                target = y_start + (top + r) * at(row, _MATMUL.y_row) + first * LANES * at(row, _MATMUL.y_col)
                _store_codes(row, acc + r * group * LANES * 4, target, count)
        first += group


@jit
def _multiply_columns(row: int, scratch: int, a: int, b: int, y_start: int, width: int) -> None:
    """All rows of one batch times up to BLOCK_COLUMNS columns; ``a`` and ``b`` are addresses of their first
    elements.
    """
    k, rows, a_type, b_type = (
        at(row, _MATMUL.k),
        at(row, _MATMUL.rows),
        at(row, _MATMUL.a_type),
        at(row, _MATMUL.b_type),
    )
    steps = (k + 1) // 2
    a_panel = scratch + BLOCKS * BLOCK_BYTES + TILE_BYTES + ZERO_BYTES
    b_panel = a_panel + BLOCK_ROWS * steps * _PAIR_BYTES
    b_strides = (at(row, _MATMUL.b_row), at(row, _MATMUL.b_col))
    for first in range(0, width, LANES):
        start = b + first * b_strides[1] * size_of(b_type)
        panel = b_panel + first * steps * _PAIR_BYTES
        _pack_panel(panel, start, b_type, at(row, _MATMUL.b_zp), b_strides, min(LANES, width - first), k)
    a_strides = (at(row, _MATMUL.a_row), at(row, _MATMUL.a_col))
    for first in range(0, rows, BLOCK_ROWS):
        count = min(BLOCK_ROWS, rows - first)
        start = a + first * a_strides[0] * size_of(a_type)
        pack_rows(a_panel, start, a_type, at(row, _MATMUL.a_zp), a_strides, count, k, steps)
        _multiply_rows(row, scratch, a_panel, b_panel, y_start + first * at(row, _MATMUL.y_row), count, width)


@jit
def wide_matmul(row: int, scratch: int) -> None:
    """The opcode ``matmul`` with int32 sums."""
    zeros = scratch + BLOCKS * BLOCK_BYTES + TILE_BYTES
    for i in range(ZERO_BYTES // 4):
        store_32(zeros, i, 0)
    a_size, b_size, cols = size_of(at(row, _MATMUL.a_type)), size_of(at(row, _MATMUL.b_type)), at(row, _MATMUL.cols)
    for batch in range(at(row, _MATMUL.b0) * at(row, _MATMUL.b1) * at(row, _MATMUL.b2) * at(row, _MATMUL.b3)):
        a = at(row, _MATMUL.a) + a_size * (at(row, _MATMUL.a_offset) + batch_offset(row, _MATMUL.a_s0, batch))
        b = at(row, _MATMUL.b) + b_size * (at(row, _MATMUL.b_offset) + batch_offset(row, _MATMUL.b_s0, batch))
        y_start = at(row, _MATMUL.y_offset) + batch_offset(row, _MATMUL.y_s0, batch)
        for first in range(0, cols, BLOCK_COLUMNS):
            start, width = b + first * at(row, _MATMUL.b_col) * b_size, min(BLOCK_COLUMNS, cols - first)
            _multiply_columns(row, scratch, a, start, y_start + first * at(row, _MATMUL.y_col), width)
