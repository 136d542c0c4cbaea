"""Piecewise linear functions of int16 codes."""

from __future__ import annotations

from ..cpu.jit import jit
from ..instructions.instruction import ISA_COLUMN, PACKED_COLUMN, Element
from ..instructions.opcodes import columns
from ..vector.line_tables import (
    LINE_CODES,
    lines_i16_64,
    lines_i16_128,
    lines_i16_256,
    lines_u8_64,
    lines_u8_128,
    lines_u8_256,
)
from ..vector.memory import load_i16, load_u8, store_8, store_16
from ..vector.sum_tiles import Isa
from .common import at, clamp, rounding

_PIECEWISE = columns("piecewise")
_I16, _AVX512 = int(Element.I16), int(Isa.AVX512_VNNI)


@jit
def _line_blocks(row: int, blocks: int, last: int) -> None:
    """The first ``blocks`` times `LINE_CODES` codes, by vector code."""
    x, y, base, slope = (
        at(row, _PIECEWISE.x),
        at(row, _PIECEWISE.y),
        at(row, _PIECEWISE.base),
        at(row, _PIECEWISE.slope),
    )
    segments, first, bits = at(row, _PIECEWISE.segments), at(row, _PIECEWISE.first), at(row, _PIECEWISE.width_bits)
    shift, lo, hi = bits + at(row, _PIECEWISE.fraction), at(row, _PIECEWISE.lo), at(row, _PIECEWISE.hi)
    if at(row, _PIECEWISE.y_type) == _I16:
        if segments == 64:
            lines_i16_64(y, x, base, slope, blocks, first, last, bits, shift, lo, hi)
        elif segments == 128:
            lines_i16_128(y, x, base, slope, blocks, first, last, bits, shift, lo, hi)
        else:
            lines_i16_256(y, x, base, slope, blocks, first, last, bits, shift, lo, hi)
    elif segments == 64:
        lines_u8_64(y, x, base, slope, blocks, first, last, bits, shift, lo, hi)
    elif segments == 128:
        lines_u8_128(y, x, base, slope, blocks, first, last, bits, shift, lo, hi)
    else:
        lines_u8_256(y, x, base, slope, blocks, first, last, bits, shift, lo, hi)


@jit
def _from_table(row: int, table: int) -> None:
    """By the codes of all inputs, which `packed_weights.py` lists for instruction sets without wide permutations."""
    x, y = at(row, _PIECEWISE.x), at(row, _PIECEWISE.y)
    if at(row, _PIECEWISE.y_type) == _I16:
        for i in range(at(row, _PIECEWISE.count)):
            store_16(y, i, load_i16(table, load_i16(x, i) + 32768))
    else:
        for i in range(at(row, _PIECEWISE.count)):
            store_8(y, i, load_u8(table, load_i16(x, i) + 32768))


@jit
def piecewise(row: int, scratch: int) -> None:
    """``y = clamp((base * 2^bits + slope * step + half) >> (bits + fraction), lo, hi)`` of the segment that x
    lies in.
    """
    if at(row, PACKED_COLUMN) != 0:
        _from_table(row, at(row, PACKED_COLUMN))
        return
    x, y, base, slope = (
        at(row, _PIECEWISE.x),
        at(row, _PIECEWISE.y),
        at(row, _PIECEWISE.base),
        at(row, _PIECEWISE.slope),
    )
    first, bits, wide = at(row, _PIECEWISE.first), at(row, _PIECEWISE.width_bits), at(row, _PIECEWISE.y_type) == _I16
    last = min(first + (at(row, _PIECEWISE.segments) << bits) - 1, 32767)
    shift, lo, hi = bits + at(row, _PIECEWISE.fraction), at(row, _PIECEWISE.lo), at(row, _PIECEWISE.hi)
    blocks = at(row, _PIECEWISE.count) // LINE_CODES if at(row, ISA_COLUMN) == _AVX512 else 0
    if blocks > 0:
        _line_blocks(row, blocks, last)
    for i in range(blocks * LINE_CODES, at(row, _PIECEWISE.count)):
        place = clamp(load_i16(x, i), first, last) - first
        segment, step = place >> bits, place & ((1 << bits) - 1)
        code = clamp(
            ((load_i16(base, segment) << bits) + load_i16(slope, segment) * step + rounding(shift)) >> shift, lo, hi
        )
        if wide:
            store_16(y, i, code)
        else:
            store_8(y, i, code)
