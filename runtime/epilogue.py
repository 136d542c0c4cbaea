"""Requantization of register tiles as LLVM vector code: int32 sums become codes, 16 columns and up to six rows at a time.

The product of a sum and its multiplier is exact in 64 bits. Even and odd columns are multiplied apart (the instruction takes the low
half of every 64-bit lane); where every shift is at least 31 the results fit int32 again, so that they join before they are limited.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .emit import loop, splat
from .simd import LANES, TILE_ROWS, Isa

HAS_MASKS = Isa.AVX512_VNNI.supported
"""Whether the last columns of a row can be stored by one masked instruction."""

SHORT_SHIFT = 31
"""From this shift on a 62-bit product becomes an int32."""

_I8, _I16, _I32, _I64 = (ir.IntType(width) for width in (8, 16, 32, 64))
_SUMS, _HALF = ir.VectorType(_I32, LANES), ir.VectorType(_I64, LANES // 2)
Requantize = Callable[[int, int, int, int, int, int, int, int, int, int, int], None]


def make_requantize(wide: bool, rows: int) -> Requantize:
    """The intrinsic is called with ``(y, y_stride, acc, acc_stride, valid, m, n, count, y_zp, lo, hi)``.

    Addresses of the first code and of the first int32 sum with the bytes to the next row; rows that exist (at most ``rows``, at least 1);
    addresses of int32 multipliers and shifts, padded to whole vectors as the sums are; columns; zero point and limits of a code. Codes are
    int16 when ``wide``, else uint8. The sums may be overwritten.
    """

    def requantize(
        typingctx: Any, y: Any, y_stride: Any, acc: Any, acc_stride: Any, valid: Any, m: Any, n: Any, count: Any, y_zp: Any, lo: Any, hi: Any
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _Writer(builder, _I16 if wide else _I8, rows, arguments).emit()
            return context.get_dummy_value()

        return types.void(*([types.int64] * 11)), codegen

    return intrinsic(requantize)  # type: ignore[no-any-return]


def _number(value: int) -> Any:
    return ir.Constant(_I64, value)


def _lanes(kind: Any, value: int) -> Any:
    return ir.Constant(kind, [value] * kind.count)


class _Writer:
    """Writes the LLVM code of one requantization."""

    def __init__(self, builder: Any, code: Any, rows: int, arguments: Any) -> None:
        self.builder, self.code, self.rows = builder, code, rows
        self.y, self.y_stride, self.acc, self.acc_stride, self.valid, self.m, self.n, self.count, self.y_zp, self.lo, self.hi = arguments

    def emit(self) -> None:
        builder = self.builder
        last = builder.sub(self.valid, _number(1))
        indices = [builder.select(builder.icmp_signed("<", _number(r), last), _number(r), last) for r in range(self.rows)]
        self.sources = [builder.add(self.acc, builder.mul(index, self.acc_stride)) for index in indices]
        self.targets = [builder.add(self.y, builder.mul(index, self.y_stride)) for index in indices]
        self.low, self.high = builder.sub(self.lo, self.y_zp), builder.sub(self.hi, self.y_zp)
        fits = [builder.icmp_signed("==", builder.sext(builder.trunc(value, _I32), _I64), value) for value in (self.low, self.high)]
        self.limits_fit = builder.and_(*fits)
        loop(builder, builder.sdiv(builder.add(self.count, _number(LANES - 1)), _number(LANES)), [], self._vector)

    def _at(self, address: Any, kind: Any) -> Any:
        return self.builder.inttoptr(address, kind.as_pointer())

    def _load(self, address: Any, kind: Any = _SUMS) -> Any:
        return self.builder.load(self._at(address, kind), align=4)

    def _vector(self, index: Any, _: list[Any]) -> list[Any]:
        builder = self.builder
        offset = builder.mul(index, _number(4 * LANES))
        shifts = self._load(builder.add(self.n, offset))
        small = builder.icmp_unsigned("<", shifts, _lanes(_SUMS, SHORT_SHIFT))
        none_small = builder.icmp_unsigned("==", builder.bitcast(small, ir.IntType(LANES)), ir.Constant(ir.IntType(LANES), 0))
        with builder.if_else(builder.and_(none_small, self.limits_fit)) as (short, long):
            with short:
                self._store(index, self._short_codes(offset))
            with long:
                self._store(index, self._long_codes(offset))
        return []

    def _even(self, vector: Any) -> Any:
        builder, half = self.builder, _lanes(_HALF, 32)
        return builder.ashr(builder.shl(builder.bitcast(vector, _HALF), half), half)

    def _odd(self, vector: Any) -> Any:
        return self.builder.ashr(self.builder.bitcast(vector, _HALF), _lanes(_HALF, 32))

    def _short_codes(self, offset: Any) -> list[Any]:
        builder, one = self.builder, _lanes(_HALF, 1)
        factors, shifts = self._load(builder.add(self.m, offset)), self._load(builder.add(self.n, offset))
        sides = []
        for side in (self._even, self._odd):
            shift = side(shifts)
            sides.append((side, side(factors), shift, builder.shl(one, builder.sub(shift, one))))
        low, high, zero = (splat(builder, builder.trunc(value, _I32), LANES) for value in (self.low, self.high, self.y_zp))
        codes = []
        for source in self.sources:
            sums = self._load(builder.add(source, offset))
            even, odd = (builder.ashr(builder.add(builder.mul(side(sums), m), half), n) for side, m, n, half in sides)
            joined = builder.or_(builder.and_(even, _lanes(_HALF, (1 << 32) - 1)), builder.shl(odd, _lanes(_HALF, 32)))
            values = builder.bitcast(joined, _SUMS)
            codes.append(self._narrow(builder.add(self._limited(values, low, high), zero)))
        return codes

    def _long_codes(self, offset: Any) -> list[Any]:
        """The general form: everything in 64 bits."""
        builder, wide = self.builder, ir.VectorType(_I64, LANES)
        factors, shifts = (builder.sext(self._load(builder.add(base, offset)), wide) for base in (self.m, self.n))
        half = builder.shl(_lanes(wide, 1), builder.sub(shifts, _lanes(wide, 1)))
        low, high, zero = (splat(builder, value, LANES) for value in (self.low, self.high, self.y_zp))
        codes = []
        for source in self.sources:
            sums = builder.sext(self._load(builder.add(source, offset)), wide)
            values = builder.ashr(builder.add(builder.mul(sums, factors), half), shifts)
            codes.append(self._narrow(builder.add(self._limited(values, low, high), zero)))
        return codes

    def _limited(self, values: Any, low: Any, high: Any) -> Any:
        builder = self.builder
        values = builder.select(builder.icmp_signed(">", values, low), values, low)
        return builder.select(builder.icmp_signed("<", values, high), values, high)

    def _narrow(self, values: Any) -> Any:
        return self.builder.trunc(values, ir.VectorType(self.code, LANES))

    def _store(self, index: Any, codes: list[Any]) -> None:
        builder, size = self.builder, self.code.width // 8
        left = builder.sub(self.count, builder.mul(index, _number(LANES)))
        offset = builder.mul(index, _number(LANES * size))
        targets = [builder.add(target, offset) for target in self.targets]
        with builder.if_else(builder.icmp_signed(">=", left, _number(LANES))) as (whole, part):
            with whole:
                for target, code in zip(targets, codes, strict=True):
                    builder.store(code, self._at(target, code.type), align=size)
            with part:
                for target, source, code in zip(targets, self.sources, codes, strict=True):
                    self._store_part(target, builder.add(source, builder.mul(index, _number(4 * LANES))), code, left)

    def _store_part(self, target: Any, spare: Any, code: Any, left: Any) -> None:
        """The first ``left`` codes; without masks by way of the sums they were made of."""
        builder, size = self.builder, self.code.width // 8
        if HAS_MASKS:
            places = ir.Constant(_SUMS, list(range(LANES)))
            mask = builder.icmp_signed("<", places, splat(builder, builder.trunc(left, _I32), LANES))
            pointer = self._at(target, code.type)
            kind = ir.FunctionType(ir.VoidType(), [code.type, pointer.type, _I32, mask.type])
            name = f"llvm.masked.store.v{LANES}i{self.code.width}.p0"
            masked = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
            builder.call(masked, [code, pointer, ir.Constant(_I32, size), mask])
            return
        builder.store(code, self._at(spare, code.type), align=size)
        first, second = self._at(spare, self.code), self._at(target, self.code)

        def copy(i: Any, _: list[Any]) -> list[Any]:
            builder.store(builder.load(builder.gep(first, [i]), align=size), builder.gep(second, [i]), align=size)
            return []

        loop(builder, left, [], copy)


requantize_u8_6, requantize_u8_1 = make_requantize(False, TILE_ROWS), make_requantize(False, 1)
requantize_i16_6, requantize_i16_1 = make_requantize(True, TILE_ROWS), make_requantize(True, 1)

REQUANTIZE = {requantize_u8_6: False, requantize_u8_1: False, requantize_i16_6: True, requantize_i16_1: True}
"""Every requantization, and whether its codes are int16."""
