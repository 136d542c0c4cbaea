"""Pools as LLVM vector code: the largest code, or the sum of codes, of the positions of a window, many channels at a
time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .llvm import I8, I16, I32, I64, loop

PoolTile = Callable[[int, int, int, int], None]


def make_pool_tile(summing: bool, wide: bool, width: int) -> PoolTile:
    """``y[c] = max or sum over positions of x_position[c]`` for ``width`` channels.

    The intrinsic is called with ``(y, pointers, count, offset)``: address of the result (codes, or int32 sums when
    ``summing``); of int64 addresses, one a position; number of positions, at least one; bytes to add to each address.
    Codes are int16 when ``wide``, else uint8.
    """

    def tile(typingctx: Any, y: Any, pointers: Any, count: Any, offset: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _emit(builder, summing, ir.VectorType(I16 if wide else I8, width), arguments)
            return context.get_dummy_value()

        return types.void(*([types.int64] * 4)), codegen

    return intrinsic(tile)  # type: ignore[no-any-return]


def _emit(builder: Any, summing: bool, codes: Any, arguments: Any) -> None:
    y, pointers, count, offset = arguments
    table = builder.inttoptr(pointers, I64.as_pointer())
    signed = codes.element.width == 16
    result = ir.VectorType(I32, codes.count) if summing else codes

    def step(index: Any, totals: list[Any]) -> list[Any]:
        address = builder.add(builder.load(builder.gep(table, [index]), align=8), offset)
        x = builder.load(builder.inttoptr(address, codes.as_pointer()), align=1)
        if summing:
            return [builder.add(totals[0], (builder.sext if signed else builder.zext)(x, result))]
        compare = builder.icmp_signed if signed else builder.icmp_unsigned
        return [builder.select(compare(">", x, totals[0]), x, totals[0])]

    start = ir.Constant(result, [-32768 if signed and not summing else 0] * codes.count)
    final = loop(builder, count, [start], step)
    builder.store(final[0], builder.inttoptr(y, result.as_pointer()), align=1)


POOL_TILES: dict[PoolTile, tuple[bool, bool, int]] = {}
"""Every pool tile with what it was made for."""


def _pool_tile(summing: bool, wide: bool, width: int) -> PoolTile:
    tile = make_pool_tile(summing, wide, width)
    POOL_TILES[tile] = (summing, wide, width)
    return tile


max_u8_64, max_u8_16, max_i16_32, max_i16_8 = (
    _pool_tile(False, wide, width) for wide, width in ((False, 64), (False, 16), (True, 32), (True, 8))
)
sum_u8_64, sum_u8_16, sum_i16_32, sum_i16_8 = (
    _pool_tile(True, wide, width) for wide, width in ((False, 64), (False, 16), (True, 32), (True, 8))
)
