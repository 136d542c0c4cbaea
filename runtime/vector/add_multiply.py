"""Sums and products of tensors of codes as LLVM vector code; the sum of two uint8 tensors, each with its factor,
on 32 bits.

``a * a_m + b * b_m + c`` may need 41 bits, but only its quotient by a power of two is wanted. With ``m = 65536 * high
+ low``, where low is a signed 16-bit number, the sum is ``65536 * h + l`` with two dot products of pairs ``(a, b)``,
and its floor by ``2^n``, n >= 16, is ``(h + (l >> 16)) >> (n - 16)``, exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ..instructions.instruction import SCALE_NUMBERS
from .llvm import I8, I16, I32, I64, loop, splat
from .requantize import Scale, limited, octets, shuffled, words
from .sum_tiles import LANES, PAIR_256, PAIR_512, PAIR_ANY, pair_step

_FLAVOUR = max((PAIR_512, PAIR_256, PAIR_ANY), key=lambda flavour: (flavour.isa.supported, flavour.bits))
_SUMS = ir.VectorType(I32, LANES)

MOST_BYTES, LEAST_BYTES = _FLAVOUR.bits // 8, 16
"""Bytes that are added at a time, and at the end of a line."""

AddBytes = Callable[[int, int, int, int, int, int, int, int, int, int, int], None]
ScaleBytes = Callable[[int, int, int, int, int, int, int, int], None]
AddCodes = Callable[[int, int, int, int, int, int, int, int, int, int], None]
MultiplyCodes = Callable[[int, int, int, int, int, int, int, int, int, int, int], None]
MultiplyBytes = Callable[[int, int, int, int, int, int, int, int, int, int, int, int], None]


def _mixed(builder: Any, a: Any, b: Any, side: int) -> Any:
    """Of every 128 bits the lower or upper bytes of a and b in turn."""
    size = a.type.count
    return shuffled(
        builder,
        a,
        b,
        [16 * lane + 8 * side + i + other for lane in range(size // 16) for i in range(8) for other in (0, size)],
    )


def _quarters(builder: Any, a: Any, b: Any) -> list[Any]:
    """Vectors of bytes as four vectors of pairs of int16, one of each, in the order of `channel_lines.quarters`."""
    size = a.type.count
    zeros, pairs = ir.Constant(a.type, [0] * size), ir.VectorType(I16, size // 2)
    halves = [_mixed(builder, a, b, side) for side in (0, 1)]
    return [builder.bitcast(_mixed(builder, half, zeros, side), pairs) for half in halves for side in (0, 1)]


def _quotients(builder: Any, pairs: Any, high: Any, low: Any, c_high: Any, c_low: Any, shift: Any) -> Any:
    """``(h + (l >> 16)) >> shift``."""
    below = builder.ashr(
        pair_step(builder, _FLAVOUR, c_low, pairs, low), ir.Constant(c_low.type, [16] * c_low.type.count)
    )
    return builder.ashr(builder.add(pair_step(builder, _FLAVOUR, c_high, pairs, high), below), shift)


def _joined(builder: Any, values: list[Any], lo: Any, hi: Any) -> Any:
    """Four vectors as one of bytes, limited."""
    return limited(
        builder, octets(builder, *(words(builder, *values[i : i + 2]) for i in (0, 2))), lo, hi, signed=False
    )


def _make_add(size: int) -> AddBytes:
    def add(
        typingctx: Any,
        y: Any,
        a: Any,
        b: Any,
        blocks: Any,
        high: Any,
        low: Any,
        c_high: Any,
        c_low: Any,
        shift: Any,
        lo: Any,
        hi: Any,
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _emit_add(builder, size, *arguments)
            return context.get_dummy_value()

        return types.void(*([types.int64] * 11)), codegen

    return intrinsic(add)  # type: ignore[no-any-return]


def _emit_add(builder: Any, size: int, y: Any, a: Any, b: Any, blocks: Any, *numbers: Any) -> None:
    high, low, c_high, c_low, shift = (splat(builder, builder.trunc(number, I32), size // 4) for number in numbers[:5])
    lo, hi = (splat(builder, builder.trunc(number, I8), size) for number in numbers[5:])
    codes, pairs = ir.VectorType(I8, size), ir.VectorType(I16, size // 2)
    high, low = builder.bitcast(high, pairs), builder.bitcast(low, pairs)
    sources, target = (
        [builder.inttoptr(base, codes.as_pointer()) for base in (a, b)],
        builder.inttoptr(y, codes.as_pointer()),
    )

    def step(index: Any, _: list[Any]) -> list[Any]:
        operands = _quarters(builder, *(builder.load(builder.gep(source, [index]), align=1) for source in sources))
        values = [_quotients(builder, quarter, high, low, c_high, c_low, shift) for quarter in operands]
        builder.store(_joined(builder, values, lo, hi), builder.gep(target, [index]), align=1)
        return []

    loop(builder, blocks, [], step)


def _make_scale(size: int) -> ScaleBytes:
    def scale(
        typingctx: Any, y: Any, y_step: Any, x: Any, x_step: Any, pixels: Any, numbers: Any, lo: Any, hi: Any
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _emit_scale(builder, size, *arguments)
            return context.get_dummy_value()

        return types.void(*([types.int64] * 8)), codegen

    return intrinsic(scale)  # type: ignore[no-any-return]


def _emit_scale(
    builder: Any, size: int, y: Any, y_step: Any, x: Any, x_step: Any, pixels: Any, numbers: Any, lo: Any, hi: Any
) -> None:
    codes, sums, pairs = ir.VectorType(I8, size), ir.VectorType(I32, size // 4), ir.VectorType(I16, size // 2)
    lo, hi = (splat(builder, builder.trunc(number, I8), size) for number in (lo, hi))
    base = builder.inttoptr(numbers, sums.as_pointer())
    loaded = [
        [builder.load(builder.gep(base, [ir.Constant(I64, 4 * which + q)]), align=4) for which in range(SCALE_NUMBERS)]
        for q in range(4)
    ]
    lines = [(builder.bitcast(high, pairs), builder.bitcast(low, pairs), *others) for high, low, *others in loaded]

    def step(_: Any, places: list[Any]) -> list[Any]:
        vector = builder.load(builder.inttoptr(places[1], codes.as_pointer()), align=1)
        operands = _quarters(builder, vector, ir.Constant(codes, [0] * size))
        values = [_quotients(builder, quarter, *line) for quarter, line in zip(operands, lines, strict=True)]
        builder.store(_joined(builder, values, lo, hi), builder.inttoptr(places[0], codes.as_pointer()), align=1)
        return [builder.add(places[0], y_step), builder.add(places[1], x_step)]

    loop(builder, pixels, [y, x], step)


def _make_wide_add(a_kind: Any, b_kind: Any, y_kind: Any) -> AddCodes:
    def add(
        typingctx: Any, y: Any, a: Any, b: Any, blocks: Any, a_m: Any, b_m: Any, c: Any, n: Any, lo: Any, hi: Any
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _emit_wide_add(builder, (a_kind, b_kind, y_kind), *arguments)
            return context.get_dummy_value()

        return types.void(*([types.int64] * 10)), codegen

    return intrinsic(add)  # type: ignore[no-any-return]


def _emit_wide_add(
    builder: Any, kinds: tuple[Any, Any, Any], y: Any, a: Any, b: Any, blocks: Any, a_m: Any, b_m: Any, *numbers: Any
) -> None:
    """Everything in 64 bits; the factors are known to have 32, so that the products of 32 bits serve."""
    factors = [splat(builder, builder.sext(builder.trunc(factor, I32), I64), LANES) for factor in (a_m, b_m)]
    c, n, lo, hi = (splat(builder, number, LANES) for number in numbers)
    vectors = [ir.VectorType(kind, LANES) for kind in kinds]
    places = [builder.inttoptr(base, vector.as_pointer()) for base, vector in zip((a, b, y), vectors, strict=True)]
    wide = ir.VectorType(I64, LANES)

    def step(index: Any, _: list[Any]) -> list[Any]:
        total = c
        for place, kind, factor in zip(places[:2], kinds[:2], factors, strict=True):
            codes = builder.load(builder.gep(place, [index]), align=1)
            total = builder.add(
                total, builder.mul((builder.sext if kind is I16 else builder.zext)(codes, wide), factor)
            )
        values = builder.ashr(total, n)
        values = builder.select(builder.icmp_signed(">", values, lo), values, lo)
        values = builder.select(builder.icmp_signed("<", values, hi), values, hi)
        builder.store(builder.trunc(values, vectors[2]), builder.gep(places[2], [index]), align=1)
        return []

    loop(builder, blocks, [], step)


def _make_product() -> MultiplyCodes:
    def multiply(
        typingctx: Any,
        y: Any,
        a: Any,
        b: Any,
        blocks: Any,
        a_zp: Any,
        b_zp: Any,
        m: Any,
        c: Any,
        n: Any,
        lo: Any,
        hi: Any,
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _emit_product(builder, *arguments)
            return context.get_dummy_value()

        return types.void(*([types.int64] * 11)), codegen

    return intrinsic(multiply)  # type: ignore[no-any-return]


def _emit_product(builder: Any, y: Any, a: Any, b: Any, blocks: Any, a_zp: Any, b_zp: Any, *numbers: Any) -> None:
    zeros = [splat(builder, builder.trunc(zero, I32), LANES) for zero in (a_zp, b_zp)]
    m, c, n, lo, hi = (splat(builder, number, LANES) for number in numbers)
    kind, wide = ir.VectorType(I16, LANES), ir.VectorType(I64, LANES)
    sources, target = (
        [builder.inttoptr(base, kind.as_pointer()) for base in (a, b)],
        builder.inttoptr(y, kind.as_pointer()),
    )

    def step(index: Any, _: list[Any]) -> list[Any]:
        codes = [builder.sext(builder.load(builder.gep(source, [index]), align=1), _SUMS) for source in sources]
        first, second = (builder.sext(builder.sub(code, zero), wide) for code, zero in zip(codes, zeros, strict=True))
        values = builder.ashr(builder.add(builder.mul(builder.mul(first, second), m), c), n)
        values = builder.select(builder.icmp_signed(">", values, lo), values, lo)
        values = builder.select(builder.icmp_signed("<", values, hi), values, hi)
        builder.store(builder.trunc(values, kind), builder.gep(target, [index]), align=1)
        return []

    loop(builder, blocks, [], step)


def _make_byte_product() -> MultiplyBytes:
    def multiply(
        typingctx: Any,
        y: Any,
        a: Any,
        b: Any,
        blocks: Any,
        a_zp: Any,
        b_zp: Any,
        m: Any,
        half: Any,
        shift: Any,
        y_zp: Any,
        lo: Any,
        hi: Any,
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _emit_byte_product(builder, *arguments)
            return context.get_dummy_value()

        return types.void(*([types.int64] * 12)), codegen

    return intrinsic(multiply)  # type: ignore[no-any-return]


def _emit_byte_product(builder: Any, y: Any, a: Any, b: Any, blocks: Any, *numbers: Any) -> None:
    """Each product is that of a pair of int16, the other half of which is 0."""
    codes, quarter = ir.VectorType(I8, MOST_BYTES), MOST_BYTES // 4
    *scale, y_zp = (splat(builder, builder.trunc(number, I32), quarter) for number in numbers[:6])
    lo, hi = (splat(builder, builder.trunc(number, I8), MOST_BYTES) for number in numbers[6:])
    zeros = [builder.bitcast(zero, ir.VectorType(I16, 2 * quarter)) for zero in scale[:2]]
    factor, half, shift = scale[2:]
    scaled = Scale(builder, lambda which: (factor, factor, half, shift)[which])
    nothing, none = ir.Constant(codes, [0] * MOST_BYTES), ir.Constant(factor.type, [0] * quarter)
    sources, target = (
        [builder.inttoptr(base, codes.as_pointer()) for base in (a, b)],
        builder.inttoptr(y, codes.as_pointer()),
    )

    def step(index: Any, _: list[Any]) -> list[Any]:
        loaded = [builder.load(builder.gep(source, [index]), align=1) for source in sources]
        sides = [
            [builder.sub(pairs, zero) for pairs in _quarters(builder, vector, nothing)]
            for vector, zero in zip(loaded, zeros, strict=True)
        ]
        products = [pair_step(builder, _FLAVOUR, none, *pair) for pair in zip(*sides, strict=True)]
        values = [builder.add(scaled.apply(product), y_zp) for product in products]
        builder.store(_joined(builder, values, lo, hi), builder.gep(target, [index]), align=1)
        return []

    loop(builder, blocks, [], step)


ADDS = {size: _make_add(size) for size in sorted({MOST_BYTES, LEAST_BYTES})}
"""By its bytes ``y[i] = min(max((65536 * h + l) >> (16 + shift), lo), hi)`` on so many blocks of uint8, lo and hi too.

Called with ``(y, a, b, blocks, high, low, c_high, c_low, shift, lo, hi)``; ``high`` and ``low`` hold the factor of b
in their upper 16 bits and that of a in the lower ones; ``h = a * a_high + b * b_high + c_high`` and ``l`` likewise.
"""

add_bytes, add_last_bytes = ADDS[MOST_BYTES], ADDS[LEAST_BYTES]

SCALES = {size: _make_scale(size) for size in (64, 32, 16)}
"""By its bytes what scales so many channels of uint8 (see `channel_lines.py`) of so many pixels.

Called with ``(y, y_step, x, x_step, pixels, numbers, lo, hi)``, the steps in bytes, ``numbers`` those of
`channel_lines.scale_numbers` for this chunk.
"""

scale_64, scale_32, scale_16 = SCALES[64], SCALES[32], SCALES[16]

add_wide_wide, add_wide_byte, add_byte_byte = (
    _make_wide_add(*kinds, I16) for kinds in ((I16, I16), (I16, I8), (I8, I8))
)
narrow_wide_wide, narrow_wide_byte = (_make_wide_add(*kinds, I8) for kinds in ((I16, I16), (I16, I8)))

WIDE_ADDS = {
    add_wide_wide: (True, True, True), add_wide_byte: (True, False, True), add_byte_byte: (False, False, True),
    narrow_wide_wide: (True, True, False), narrow_wide_byte: (True, False, False),
}
"""``y[i] = min(max((a * a_m + b * b_m + c) >> n, lo), hi)`` on ``16 * blocks`` codes, and whether a, b and y are int16,
else uint8.

Called with ``(y, a, b, blocks, a_m, b_m, c, n, lo, hi)``.
"""

multiply_wide = _make_product()
"""``y[i] = min(max(((a - a_zp) * (b - b_zp) * m + c) >> n, lo), hi)`` on ``16 * blocks`` int16 codes; everything fits
64 bits.

Called with ``(y, a, b, blocks, a_zp, b_zp, m, c, n, lo, hi)``.
"""

multiply_bytes = _make_byte_product()
"""``y[i] = min(max((((a - a_zp) * (b - b_zp) * m >> 32) + half >> shift) + y_zp, lo), hi)`` on ``MOST_BYTES * blocks``
uint8; zero points and limits are uint8, too.

Called with ``(y, a, b, blocks, a_zp, b_zp, m, half, shift, y_zp, lo, hi)``.
"""
