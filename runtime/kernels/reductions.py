"""Reductions over the middle axis of [outer, k, inner]: sums and extremes, and where the largest elements are."""

from __future__ import annotations

from ..cpu.jit import jit
from ..instructions.instruction import Element, Reduction
from ..instructions.opcodes import columns
from ..vector.memory import load_i16, load_i64, load_u8, store_64
from .common import (
    BLOCK,
    BLOCK_BYTES,
    BLOCKS,
    add_row,
    at,
    clamp,
    fetch,
    load_block,
    put,
    rounding,
    size_of,
    store_block,
)

_REDUCE, _ARGMAX, _TOPK = columns("reduce"), columns("argmax"), columns("topk")
_U8, _I16, _I64, _BOOL = int(Element.U8), int(Element.I16), int(Element.I64), int(Element.BOOL)
_SUM, _MEAN, _LARGEST = int(Reduction.SUM), int(Reduction.MEAN), int(Reduction.MAX)
_MOST = (1 << 31) - 1
"""The last position that there may be."""
_FEW_COLUMNS = 8
"""Columns below which each is read for itself."""


@jit
def _line_sum(x: int, element: int, count: int) -> int:
    """Of elements that lie side by side from ``x`` on."""
    total = 0
    if element == _I16:
        for c in range(count):
            total += load_i16(x, c)
    elif element in (_U8, _BOOL):
        for c in range(count):
            total += load_u8(x, c)
    else:
        for c in range(count):
            total += fetch(x, element, c)
    return total


@jit
def _line_extreme(block: int, x: int, element: int, start: int, count: int, flip: int) -> int:
    """The largest of the elements (``flip`` 0), or the smallest (``flip`` -1: the largest of their complements)."""
    best = -(1 << 63)
    for first in range(0, count, BLOCK):
        size = min(BLOCK, count - first)
        load_block(block, x, element, start + first, 1, size)
        for c in range(size):
            best = max(best, load_i64(block, c) ^ flip)
    return best ^ flip


@jit
def _extreme_rows(block: int, acc: int, x: int, element: int, start: int, k: int, inner: int, flip: int) -> None:
    """The same for each column of [k, inner]."""
    for first in range(0, inner, BLOCK):
        best, size = acc + 8 * first, min(BLOCK, inner - first)
        for c in range(size):
            store_64(best, c, -(1 << 63))
        for j in range(k):
            load_block(block, x, element, start + j * inner + first, 1, size)
            for c in range(size):
                store_64(best, c, max(load_i64(best, c), load_i64(block, c) ^ flip))
        for c in range(size):
            store_64(best, c, load_i64(best, c) ^ flip)


@jit
def _reduced_code(row: int, total: int) -> int:
    """Code of a sum or mean from the sum of raw codes."""
    k, m, n = at(row, _REDUCE.k), at(row, _REDUCE.m), at(row, _REDUCE.n)
    y_zp, lo, hi = at(row, _REDUCE.y_zp), at(row, _REDUCE.lo), at(row, _REDUCE.hi)
    scaled = (total - k * at(row, _REDUCE.x_zp)) * m
    if at(row, _REDUCE.divide) != 0:
        denominator = k << n
        return clamp((2 * scaled + denominator) // (2 * denominator) + y_zp, lo, hi)
    return clamp(((scaled + rounding(n)) >> n) + y_zp, lo, hi)


@jit
def _reduce_line(row: int, scratch: int, outer: int) -> int:
    kind, k, x, element = at(row, _REDUCE.kind), at(row, _REDUCE.k), at(row, _REDUCE.x), at(row, _REDUCE.x_type)
    if kind in (_SUM, _MEAN):
        return _reduced_code(row, _line_sum(x + outer * k * size_of(element), element, k))
    return _line_extreme(scratch, x, element, outer * k, k, 0 if kind == _LARGEST else -1)


@jit
def reduce(row: int, scratch: int) -> None:
    """Sum, mean, max or min over the middle axis of [outer, k, inner]."""
    acc = scratch + BLOCKS * BLOCK_BYTES
    kind, k, inner = at(row, _REDUCE.kind), at(row, _REDUCE.k), at(row, _REDUCE.inner)
    x, element, y, y_type = at(row, _REDUCE.x), at(row, _REDUCE.x_type), at(row, _REDUCE.y), at(row, _REDUCE.y_type)
    for outer in range(at(row, _REDUCE.outer)):
        if inner == 1:
            put(y, y_type, outer, _reduce_line(row, scratch, outer))
            continue
        if kind in (_SUM, _MEAN):
            for c in range(inner):
                store_64(acc, c, 0)
            for j in range(k):
                add_row(acc, x, element, (outer * k + j) * inner, inner)
            for c in range(inner):
                store_64(acc, c, _reduced_code(row, load_i64(acc, c)))
        else:
            _extreme_rows(scratch, acc, x, element, outer * k * inner, k, inner, 0 if kind == _LARGEST else -1)
        store_block(y, y_type, outer * inner, acc, inner)


@jit
def _argmax_one(x: int, element: int, start: int, step: int, count: int, select_last: bool) -> int:
    best, position = fetch(x, element, start), 0
    for j in range(1, count):
        value = fetch(x, element, start + j * step)
        if value > best or (select_last and value == best):
            best, position = value, j
    return position


@jit
def _key(element: int, position: int, last: bool) -> int:
    """Its order is that of elements; of equal ones that of positions (below 2^31), which turns round for the first."""
    return (element << 32) + (position if last else _MOST - position)


@jit
def _position(key: int, last: bool) -> int:
    return key & _MOST if last else _MOST - (key & _MOST)


@jit
def _argmax_line(block: int, x: int, element: int, start: int, step: int, count: int, last: bool) -> int:
    """By the largest key."""
    best = -(1 << 63)
    for first in range(0, count, BLOCK):
        size = min(BLOCK, count - first)
        load_block(block, x, element, start + first * step, step, size)
        for j in range(size):
            best = max(best, _key(load_i64(block, j), first + j, last))
    return _position(best, last)


@jit
def _argmax_columns(row: int, scratch: int, outer: int, first: int, count: int, last: bool) -> None:
    """The same for each of ``count`` columns from ``first`` on."""
    k, inner, keys = at(row, _ARGMAX.k), at(row, _ARGMAX.inner), scratch + BLOCK_BYTES
    for c in range(count):
        store_64(keys, c, -(1 << 63))
    for j in range(k):
        start = (outer * k + j) * inner + first
        load_block(scratch, at(row, _ARGMAX.x), at(row, _ARGMAX.x_type), start, 1, count)
        for c in range(count):
            store_64(keys, c, max(load_i64(keys, c), _key(load_i64(scratch, c), j, last)))
    for c in range(count):
        store_64(at(row, _ARGMAX.y), outer * inner + first + c, _position(load_i64(keys, c), last))


@jit
def argmax(row: int, scratch: int) -> None:
    """Position of the largest code along the middle axis of [outer, k, inner]."""
    k, inner, x, element = at(row, _ARGMAX.k), at(row, _ARGMAX.inner), at(row, _ARGMAX.x), at(row, _ARGMAX.x_type)
    last = at(row, _ARGMAX.select_last) != 0
    for outer in range(at(row, _ARGMAX.outer)):
        if inner >= _FEW_COLUMNS and element != _I64:
            for first in range(0, inner, BLOCK):
                _argmax_columns(row, scratch, outer, first, min(BLOCK, inner - first), last)
            continue
        for c in range(inner):
            start = outer * k * inner + c
            if element == _I64:
                position = _argmax_one(x, element, start, inner, k, last)
            else:
                position = _argmax_line(scratch, x, element, start, inner, k, last)
            store_64(at(row, _ARGMAX.y), outer * inner + c, position)


@jit
def _comes_first(x: int, element: int, i: int, j: int, smallest: bool) -> bool:
    """Whether element ``i`` of a line stands before element ``j`` in the result."""
    a, b = fetch(x, element, i), fetch(x, element, j)
    if a == b:
        return i < j
    return (a < b) == smallest


@jit
def _sift(heap: int, place: int, size: int, x: int, element: int, smallest: bool) -> None:
    """Lets an entry of a heap sink, whose root is the entry that comes last."""
    item = load_i64(heap, place)
    while 2 * place + 1 < size:
        child = 2 * place + 1
        if child + 1 < size and _comes_first(x, element, load_i64(heap, child), load_i64(heap, child + 1), smallest):
            child += 1
        if not _comes_first(x, element, item, load_i64(heap, child), smallest):
            break
        store_64(heap, place, load_i64(heap, child))
        place = child
    store_64(heap, place, item)


@jit
def _select(heap: int, row: int, start: int) -> None:
    """Fills ``heap`` with the elements of a line that come first, in their order."""
    x, element, smallest = at(row, _TOPK.x), at(row, _TOPK.x_type), at(row, _TOPK.smallest) != 0
    count, step = at(row, _TOPK.count), at(row, _TOPK.inner)
    for i in range(count):
        store_64(heap, i, start + i * step)
    for i in range(count // 2):
        _sift(heap, count // 2 - 1 - i, count, x, element, smallest)
    for j in range(count, at(row, _TOPK.k)):
        if _comes_first(x, element, start + j * step, load_i64(heap, 0), smallest):
            store_64(heap, 0, start + j * step)
            _sift(heap, 0, count, x, element, smallest)
    for i in range(1, count):
        last = load_i64(heap, 0)
        store_64(heap, 0, load_i64(heap, count - i))
        store_64(heap, count - i, last)
        _sift(heap, 0, count - i, x, element, smallest)


@jit
def topk(row: int, scratch: int) -> None:
    """Positions of the largest codes along the middle axis of [outer, k, inner], by a heap of as many as are wanted."""
    heap, count, inner = scratch + BLOCKS * BLOCK_BYTES, at(row, _TOPK.count), at(row, _TOPK.inner)
    if count == 0:
        return
    for outer in range(at(row, _TOPK.outer)):
        for c in range(inner):
            start = outer * at(row, _TOPK.k) * inner + c
            _select(heap, row, start)
            for i in range(count):
                store_64(at(row, _TOPK.y), (outer * count + i) * inner + c, (load_i64(heap, i) - start) // inner)
