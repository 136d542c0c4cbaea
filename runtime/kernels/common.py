"""What all kernels share: reading a row, typed elements, blocks of elements widened to int64, strided walks.

A kernel is called with the address of its row in the instruction table and the address of scratch memory. Operands in
the row are addresses by then (`interpreter.py` adds the bases of arena and blob).
"""

from __future__ import annotations

from ..cpu.jit import jit
from ..instructions.instruction import BLOCK as BLOCK
from ..instructions.instruction import BLOCK_BYTES as BLOCK_BYTES
from ..instructions.instruction import BLOCKS as BLOCKS
from ..instructions.instruction import MAX_RANK, Element
from ..vector.memory import load_i8, load_i16, load_i32, load_i64, load_u8, store_8, store_16, store_32, store_64

_U8, _I8, _I16, _I32, _I64, _BOOL = (
    int(element) for element in (Element.U8, Element.I8, Element.I16, Element.I32, Element.I64, Element.BOOL)
)
_OUTER_AXES = MAX_RANK - 1


@jit
def at(row: int, column: int) -> int:
    """A number of the instruction."""
    return load_i64(row, column)


@jit
def at_or(row: int, column: int, default: int) -> int:
    """A number of the instruction; ``default`` where it is 0."""
    number: int = load_i64(row, column)
    return number if number != 0 else default


@jit
def fetch(base: int, element: int, index: int) -> int:
    """One element of any type."""
    if element in (_U8, _BOOL):
        return load_u8(base, index)
    if element == _I16:
        return load_i16(base, index)
    if element == _I8:
        return load_i8(base, index)
    if element == _I32:
        return load_i32(base, index)
    return load_i64(base, index)


@jit
def put(base: int, element: int, index: int, value: int) -> None:
    """Store the low bits of ``value``."""
    if element in (_U8, _BOOL, _I8):
        store_8(base, index, value)
    elif element == _I16:
        store_16(base, index, value)
    elif element == _I32:
        store_32(base, index, value)
    else:
        store_64(base, index, value)


@jit
def size_of(element: int) -> int:
    """Bytes of an element."""
    if element == _I16:
        return 2
    if element == _I32:
        return 4
    return 8 if element == _I64 else 1


@jit
def rounding(n: int) -> int:
    """What is added before a shift by n: half of 2^n, 0 for n = 0."""
    return (1 << n) >> 1


@jit
def clamp(value: int, lo: int, hi: int) -> int:
    """``value`` limited to [lo, hi]."""
    return min(max(value, lo), hi)


@jit
def load_block(block: int, base: int, element: int, start: int, stride: int, count: int) -> None:
    """``count`` elements, ``stride`` apart from ``start`` on, widened to int64."""
    first = base + start * size_of(element)
    if stride == 0:
        value = fetch(first, element, 0)
        for i in range(count):
            store_64(block, i, value)
    elif stride == 1:
        _load_dense(block, first, element, count)
    elif element == _U8:
        for i in range(count):
            store_64(block, i, load_u8(first, i * stride))
    elif element == _I16:
        for i in range(count):
            store_64(block, i, load_i16(first, i * stride))
    else:
        for i in range(count):
            store_64(block, i, fetch(first, element, i * stride))


@jit
def _load_dense(block: int, first: int, element: int, count: int) -> None:
    if element == _I16:
        for i in range(count):
            store_64(block, i, load_i16(first, i))
    elif element in (_U8, _BOOL):
        for i in range(count):
            store_64(block, i, load_u8(first, i))
    elif element == _I8:
        for i in range(count):
            store_64(block, i, load_i8(first, i))
    elif element == _I32:
        for i in range(count):
            store_64(block, i, load_i32(first, i))
    else:
        for i in range(count):
            store_64(block, i, load_i64(first, i))


@jit
def as_int32(value: int) -> int:
    """A number that fits int32, said so that it shows: two of them are multiplied by one vector instruction."""
    return (value << 32) >> 32


@jit
def load_terms(
    block: int, base: int, element: int, start: int, stride: int, count: int, zero_point: int, m: int
) -> None:
    """As `load_block`, and ``(code - zero_point) * m`` of each."""
    first, factor, offset = base + start * size_of(element), as_int32(m), zero_point * m
    if stride == 0:
        value = fetch(first, element, 0) * m - offset
        for i in range(count):
            store_64(block, i, value)
    elif stride == 1 and element == _I16:
        for i in range(count):
            store_64(block, i, load_i16(first, i) * factor - offset)
    elif stride == 1 and element == _U8:
        for i in range(count):
            store_64(block, i, load_u8(first, i) * factor - offset)
    else:
        load_block(block, base, element, start, stride, count)
        scale_block(block, count, zero_point, m)


@jit
def store_block(base: int, element: int, start: int, block: int, count: int) -> None:
    """The low bits of ``count`` int64 of ``block``, dense."""
    first = base + start * size_of(element)
    if element == _I16:
        for i in range(count):
            store_16(first, i, load_i64(block, i))
    elif element == _I32:
        for i in range(count):
            store_32(first, i, load_i64(block, i))
    elif element == _I64:
        for i in range(count):
            store_64(first, i, load_i64(block, i))
    else:
        for i in range(count):
            store_8(first, i, load_i64(block, i))


@jit
def store_strided(base: int, element: int, start: int, stride: int, block: int, count: int) -> None:
    """The low bits of ``count`` int64 of ``block``, ``stride`` elements apart from ``start`` on."""
    if stride == 1:
        store_block(base, element, start, block, count)
        return
    for i in range(count):
        put(base, element, start + i * stride, load_i64(block, i))


@jit
def scale_block(block: int, count: int, zero_point: int, m: int) -> None:
    """``(value - zero_point) * m`` of int64 values, in place."""
    for i in range(count):
        store_64(block, i, (load_i64(block, i) - zero_point) * m)


@jit
def code_block(block: int, count: int, zero_point: int, lo: int, hi: int) -> None:
    """Turn int64 results into codes, in place."""
    for i in range(count):
        store_64(block, i, clamp(load_i64(block, i) + zero_point, lo, hi))


@jit
def requant_block(block: int, count: int, m: int, n: int) -> None:
    """``(v * m + half) >> n``, in place."""
    half = rounding(n)
    for i in range(count):
        store_64(block, i, (load_i64(block, i) * m + half) >> n)


@jit
def add_row(acc: int, x: int, element: int, start: int, count: int) -> None:
    """Add ``count`` elements from ``start`` on to int64 sums."""
    if element == _I16:
        for c in range(count):
            store_64(acc, c, load_i64(acc, c) + load_i16(x, start + c))
    else:
        for c in range(count):
            store_64(acc, c, load_i64(acc, c) + fetch(x, element, start + c))


@jit
def outer_count(row: int, dims: int) -> int:
    """Number of innermost runs of a walk over six dimensions."""
    count = 1
    for k in range(_OUTER_AXES):
        count *= at(row, dims + k)
    return count


@jit
def outer_offset(row: int, dims: int, strides: int, index: int) -> int:
    """Element offset of the ``index``-th innermost run."""
    offset = 0
    for k in range(_OUTER_AXES - 1, -1, -1):
        size = at(row, dims + k)
        if size > 1:
            offset += (index % size) * at(row, strides + k)
            index //= size
    return offset
