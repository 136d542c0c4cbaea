"""Sums and products of two tensors of codes as LLVM vector code; the sum of two uint8 tensors, each with its factor, on 32 bits.

``a * a_m + b * b_m + c`` may need 41 bits, but only its quotient by a power of two is wanted. With ``m = 65536 * high + low``, where low is a
signed 16-bit number, the sum is ``65536 * h + l`` with two dot products of pairs ``(a, b)``, and its floor by ``2^n``, n >= 16, is
``(h + (l >> 16)) >> (n - 16)``, exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .emit import loop, splat
from .simd import LANES, PAIR_512, PAIR_ANY, Isa, pair_step

_I8, _I16, _I32, _I64 = (ir.IntType(width) for width in (8, 16, 32, 64))
_FLAVOUR = PAIR_512 if Isa.AVX512_VNNI.supported else PAIR_ANY
_CODES, _SUMS, _PAIRS = ir.VectorType(_I8, LANES), ir.VectorType(_I32, LANES), ir.VectorType(_I16, 2 * LANES)
AddBytes = Callable[[int, int, int, int, int, int, int, int, int, int, int, int], None]
AddCodes = Callable[[int, int, int, int, int, int, int, int, int, int], None]
MultiplyCodes = Callable[[int, int, int, int, int, int, int, int, int, int, int], None]


def _make_add() -> AddBytes:
    def add(
        typingctx: Any, y: Any, a: Any, b: Any, blocks: Any, high: Any, low: Any, c_high: Any, c_low: Any, shift: Any, lo: Any, hi: Any, y_zp: Any
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _emit_add(builder, *arguments)
            return context.get_dummy_value()

        return types.void(*([types.int64] * 12)), codegen

    return intrinsic(add)  # type: ignore[no-any-return]


def _emit_add(builder: Any, y: Any, a: Any, b: Any, blocks: Any, *numbers: Any) -> None:
    high, low, c_high, c_low, shift, lo, hi, y_zp = (splat(builder, builder.trunc(number, _I32), LANES) for number in numbers)
    high, low = builder.bitcast(high, _PAIRS), builder.bitcast(low, _PAIRS)
    half = ir.Constant(_SUMS, [16] * LANES)
    sources, target = [builder.inttoptr(base, _CODES.as_pointer()) for base in (a, b)], builder.inttoptr(y, _CODES.as_pointer())

    def step(index: Any, _: list[Any]) -> list[Any]:
        first, second = (builder.zext(builder.load(builder.gep(source, [index]), align=1), _SUMS) for source in sources)
        pairs = builder.bitcast(builder.or_(first, builder.shl(second, half)), _PAIRS)
        below = builder.ashr(pair_step(builder, _FLAVOUR, c_low, pairs, low), half)
        values = builder.ashr(builder.add(pair_step(builder, _FLAVOUR, c_high, pairs, high), below), shift)
        values = builder.select(builder.icmp_signed(">", values, lo), values, lo)
        values = builder.select(builder.icmp_signed("<", values, hi), values, hi)
        builder.store(builder.trunc(builder.add(values, y_zp), _CODES), builder.gep(target, [index]), align=1)
        return []

    loop(builder, blocks, [], step)


def _make_wide_add(a_kind: Any, b_kind: Any, y_kind: Any) -> AddCodes:
    def add(typingctx: Any, y: Any, a: Any, b: Any, blocks: Any, a_m: Any, b_m: Any, c: Any, n: Any, lo: Any, hi: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _emit_wide_add(builder, (a_kind, b_kind, y_kind), *arguments)
            return context.get_dummy_value()

        return types.void(*([types.int64] * 10)), codegen

    return intrinsic(add)  # type: ignore[no-any-return]


def _emit_wide_add(builder: Any, kinds: tuple[Any, Any, Any], y: Any, a: Any, b: Any, blocks: Any, a_m: Any, b_m: Any, *numbers: Any) -> None:
    """Everything in 64 bits; the factors are known to have 32, so that the products of 32 bits serve."""
    factors = [splat(builder, builder.sext(builder.trunc(factor, _I32), _I64), LANES) for factor in (a_m, b_m)]
    c, n, lo, hi = (splat(builder, number, LANES) for number in numbers)
    vectors = [ir.VectorType(kind, LANES) for kind in kinds]
    places = [builder.inttoptr(base, vector.as_pointer()) for base, vector in zip((a, b, y), vectors, strict=True)]
    wide = ir.VectorType(_I64, LANES)

    def step(index: Any, _: list[Any]) -> list[Any]:
        total = c
        for place, kind, factor in zip(places[:2], kinds[:2], factors, strict=True):
            codes = builder.load(builder.gep(place, [index]), align=1)
            total = builder.add(total, builder.mul((builder.sext if kind is _I16 else builder.zext)(codes, wide), factor))
        values = builder.ashr(total, n)
        values = builder.select(builder.icmp_signed(">", values, lo), values, lo)
        values = builder.select(builder.icmp_signed("<", values, hi), values, hi)
        builder.store(builder.trunc(values, vectors[2]), builder.gep(places[2], [index]), align=1)
        return []

    loop(builder, blocks, [], step)


def _make_product() -> MultiplyCodes:
    def multiply(
        typingctx: Any, y: Any, a: Any, b: Any, blocks: Any, a_zp: Any, b_zp: Any, m: Any, c: Any, n: Any, lo: Any, hi: Any
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _emit_product(builder, *arguments)
            return context.get_dummy_value()

        return types.void(*([types.int64] * 11)), codegen

    return intrinsic(multiply)  # type: ignore[no-any-return]


def _emit_product(builder: Any, y: Any, a: Any, b: Any, blocks: Any, a_zp: Any, b_zp: Any, *numbers: Any) -> None:
    zeros = [splat(builder, builder.trunc(zero, _I32), LANES) for zero in (a_zp, b_zp)]
    m, c, n, lo, hi = (splat(builder, number, LANES) for number in numbers)
    kind, wide = ir.VectorType(_I16, LANES), ir.VectorType(_I64, LANES)
    sources, target = [builder.inttoptr(base, kind.as_pointer()) for base in (a, b)], builder.inttoptr(y, kind.as_pointer())

    def step(index: Any, _: list[Any]) -> list[Any]:
        codes = [builder.sext(builder.load(builder.gep(source, [index]), align=1), _SUMS) for source in sources]
        first, second = (builder.sext(builder.sub(code, zero), wide) for code, zero in zip(codes, zeros, strict=True))
        values = builder.ashr(builder.add(builder.mul(builder.mul(first, second), m), c), n)
        values = builder.select(builder.icmp_signed(">", values, lo), values, lo)
        values = builder.select(builder.icmp_signed("<", values, hi), values, hi)
        builder.store(builder.trunc(values, kind), builder.gep(target, [index]), align=1)
        return []

    loop(builder, blocks, [], step)


add_bytes = _make_add()
"""``y[i] = min(max(((65536 * h + l) >> (16 + shift)), lo), hi) + y_zp`` on ``16 * blocks`` codes.

Called with ``(y, a, b, blocks, high, low, c_high, c_low, shift, lo, hi, y_zp)``; ``high`` and ``low`` hold the factor of b in their upper
16 bits and that of a in the lower ones; ``h = a * a_high + b * b_high + c_high`` and ``l`` likewise.
"""

add_wide_wide, add_wide_byte, add_byte_byte = (_make_wide_add(*kinds, _I16) for kinds in ((_I16, _I16), (_I16, _I8), (_I8, _I8)))
narrow_wide_wide, narrow_wide_byte = (_make_wide_add(*kinds, _I8) for kinds in ((_I16, _I16), (_I16, _I8)))

WIDE_ADDS = {
    add_wide_wide: (True, True, True), add_wide_byte: (True, False, True), add_byte_byte: (False, False, True),
    narrow_wide_wide: (True, True, False), narrow_wide_byte: (True, False, False),
}
"""``y[i] = min(max((a * a_m + b * b_m + c) >> n, lo), hi)`` on ``16 * blocks`` codes, and whether a, b and y are int16, else uint8.

Called with ``(y, a, b, blocks, a_m, b_m, c, n, lo, hi)``.
"""

multiply_wide = _make_product()
"""``y[i] = min(max(((a - a_zp) * (b - b_zp) * m + c) >> n, lo), hi)`` on ``16 * blocks`` int16 codes; everything fits 64 bits.

Called with ``(y, a, b, blocks, a_zp, b_zp, m, c, n, lo, hi)``.
"""
