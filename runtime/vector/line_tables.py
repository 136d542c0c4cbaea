"""Piecewise linear functions of int16 codes as LLVM vector code: the lines of 32 codes are found by permutations of
registers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .llvm import I8, I16, I32, I64, loop, splat
from .sum_tiles import PAIR_512, Isa, pair_step

LINE_CODES = 32
"""Codes that are computed at once."""

HAS_LINES = Isa.AVX512_VNNI.supported
"""Whether 64 lines can be looked up by one instruction."""

_CODES, _BYTES, _SUMS = (
    ir.VectorType(I16, LINE_CODES),
    ir.VectorType(I8, LINE_CODES),
    ir.VectorType(I32, LINE_CODES // 2),
)
_LOW = [place for lane in range(0, LINE_CODES, 8) for j in range(lane, lane + 4) for place in (j, LINE_CODES + j)]
_HIGH = [place + 4 for place in _LOW]
_REGISTERS = 64
Lines = Callable[[int, int, int, int, int, int, int, int, int, int, int], None]


def make_lines(segments: int, wide: bool) -> Lines:
    """The intrinsic is called with ``(y, x, base, slope, blocks, first, last, width_bits, shift, lo, hi)``.

    It computes ``32 * blocks`` codes, int16 when ``wide``, else uint8; empty where not `HAS_LINES`.
    """

    def lines(
        typingctx: Any,
        y: Any,
        x: Any,
        base: Any,
        slope: Any,
        blocks: Any,
        first: Any,
        last: Any,
        width_bits: Any,
        shift: Any,
        lo: Any,
        hi: Any,
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            if HAS_LINES:
                _emit_lines(builder, segments, wide, *arguments)
            return context.get_dummy_value()

        return types.void(*([types.int64] * 11)), codegen

    return intrinsic(lines)  # type: ignore[no-any-return]


def _emit_lines(
    builder: Any, segments: int, wide: bool, y: Any, x: Any, base: Any, slope: Any, blocks: Any, *numbers: Any
) -> None:
    first, last, bits, shift, lo, hi = numbers
    first, last, bits, lo, hi = (
        splat(builder, builder.trunc(number, I16), LINE_CODES) for number in (first, last, bits, lo, hi)
    )
    one = ir.Constant(_CODES, [1] * LINE_CODES)
    width = builder.shl(one, bits)
    inside = builder.sub(width, one)
    shifts = splat(builder, builder.trunc(shift, I32), LINE_CODES // 2)
    half = builder.lshr(
        builder.shl(ir.Constant(_SUMS, [1] * _SUMS.count), shifts), ir.Constant(_SUMS, [1] * _SUMS.count)
    )
    tables = [_parts(builder, address, segments) for address in (base, slope)]
    source = builder.inttoptr(x, _CODES.as_pointer())
    target = builder.inttoptr(y, (_CODES if wide else _BYTES).as_pointer())

    def step(index: Any, _: list[Any]) -> list[Any]:
        codes = builder.load(builder.gep(source, [index]), align=2)
        place = builder.sub(_limited(builder, codes, first, last), first)
        segment = builder.lshr(place, bits)
        start, rise = (_look_up(builder, table, segment) for table in tables)
        sums = [
            builder.ashr(
                pair_step(builder, PAIR_512, half, _mixed(builder, width, builder.and_(place, inside), order), lines),
                shifts,
            )
            for order, lines in ((order, _mixed(builder, start, rise, order)) for order in (_LOW, _HIGH))
        ]
        joined = builder.module.declare_intrinsic(
            "llvm.x86.avx512.packssdw.512", (), ir.FunctionType(_CODES, [_SUMS, _SUMS])
        )
        values = _limited(builder, builder.call(joined, sums), lo, hi)
        builder.store(
            values if wide else builder.trunc(values, _BYTES), builder.gep(target, [index]), align=2 if wide else 1
        )
        return []

    loop(builder, blocks, [], step)


def _parts(builder: Any, address: Any, segments: int) -> list[Any]:
    pointer = builder.inttoptr(address, _CODES.as_pointer())
    return [builder.load(builder.gep(pointer, [ir.Constant(I64, i)]), align=2) for i in range(segments // LINE_CODES)]


def _limited(builder: Any, values: Any, low: Any, high: Any) -> Any:
    values = builder.select(builder.icmp_signed(">", values, low), values, low)
    return builder.select(builder.icmp_signed("<", values, high), values, high)


def _mixed(builder: Any, first: Any, second: Any, order: list[int]) -> Any:
    return builder.shuffle_vector(first, second, ir.Constant(ir.VectorType(I32, LINE_CODES), order))


def _look_up(builder: Any, parts: list[Any], index: Any) -> Any:
    """Entries of a table in vectors: pairs of vectors are permuted, the upper bits of the index choose among the
    pairs.
    """
    permute = builder.module.declare_intrinsic(
        "llvm.x86.avx512.vpermi2var.hi.512", (), ir.FunctionType(_CODES, [_CODES] * 3)
    )
    found = [builder.call(permute, [parts[i], index, parts[i + 1]]) for i in range(0, len(parts), 2)]
    bit = _REGISTERS
    while len(found) > 1:
        upper = builder.icmp_unsigned(
            "!=", builder.and_(index, ir.Constant(_CODES, [bit] * LINE_CODES)), ir.Constant(_CODES, [0] * LINE_CODES)
        )
        found = [builder.select(upper, found[i + 1], found[i]) for i in range(0, len(found), 2)]
        bit *= 2
    return found[0]


def _make_wide_lookup() -> Callable[[int, int, int, int], None]:
    def lookup(typingctx: Any, y: Any, x: Any, table: Any, blocks: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            if HAS_LINES:
                _emit_wide_lookup(builder, *arguments)
            return context.get_dummy_value()

        return types.void(*([types.int64] * 4)), codegen

    return intrinsic(lookup)  # type: ignore[no-any-return]


def _emit_wide_lookup(builder: Any, y: Any, x: Any, table: Any, blocks: Any) -> None:
    source, target = builder.inttoptr(x, _BYTES.as_pointer()), builder.inttoptr(y, _CODES.as_pointer())
    entries = _parts(builder, table, 256)

    def step(index: Any, _: list[Any]) -> list[Any]:
        codes = builder.zext(builder.load(builder.gep(source, [index]), align=1), _CODES)
        builder.store(_look_up(builder, entries, codes), builder.gep(target, [index]), align=2)
        return []

    loop(builder, blocks, [], step)


lookup_wide = _make_wide_lookup()
"""``y[i] = table[x[i]]`` for ``32 * blocks`` uint8 codes and 256 int16 entries: called with ``(y, x, table,
blocks)``; only where `HAS_LINES`."""

lines_u8_64, lines_u8_128, lines_u8_256 = (make_lines(segments, False) for segments in (64, 128, 256))
lines_i16_64, lines_i16_128, lines_i16_256 = (make_lines(segments, True) for segments in (64, 128, 256))

LINES = {
    lines_u8_64: False,
    lines_u8_128: False,
    lines_u8_256: False,
    lines_i16_64: True,
    lines_i16_128: True,
    lines_i16_256: True,
}
"""Every such function, and whether its codes are int16."""
