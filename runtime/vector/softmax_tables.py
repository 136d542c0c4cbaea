"""Exponentials of distances from the largest code as LLVM vector code, 16 at a time.

``exp`` is the product of three table entries, chosen by the upper five, the middle five and the lower six bits of a
distance, so that every table fits into a few registers and is looked up by a permutation. Products are taken in 64-bit
lanes, even and odd codes apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .llvm import I8, I16, I32, I64, loop, splat
from .sum_tiles import LANES, Isa

COARSE, MIDDLE, FINE = 32, 32, 64
"""Entries of the tables."""

COARSE_SHIFT, MIDDLE_SHIFT = 11, 6
"""Where the bits of a distance begin that choose among them."""

HAS_EXPONENTIALS = Isa.AVX512_VNNI.supported
"""Whether 32 entries can be looked up by one instruction."""

_TERMS, _HALF = ir.VectorType(I32, LANES), ir.VectorType(I64, LANES // 2)
_Q = 30
Exponentials = Callable[[int, int, int, int, int, int, int], int]


def make_exponentials(wide: bool) -> Exponentials:
    """The intrinsic is called with ``(terms, x, peak, coarse, middle, fine, blocks)``; x int16 when ``wide``, else
    uint8.

    It writes ``16 * blocks`` int32 terms in Q30 and returns their sum; it is empty where not `HAS_EXPONENTIALS`.
    """

    def exponentials(
        typingctx: Any, terms: Any, x: Any, peak: Any, coarse: Any, middle: Any, fine: Any, blocks: Any
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return _emit(builder, I16 if wide else I8, *arguments) if HAS_EXPONENTIALS else ir.Constant(I64, 0)

        return types.int64(*([types.int64] * 7)), codegen

    return intrinsic(exponentials)  # type: ignore[no-any-return]


def _emit(
    builder: Any, code: Any, terms: Any, x: Any, peak: Any, coarse: Any, middle: Any, fine: Any, blocks: Any
) -> Any:
    kind = ir.VectorType(code, LANES)
    source, target = builder.inttoptr(x, kind.as_pointer()), builder.inttoptr(terms, _TERMS.as_pointer())
    tables = [
        _registers(builder, address, size) for address, size in ((coarse, COARSE), (middle, MIDDLE), (fine, FINE))
    ]
    largest = splat(builder, builder.trunc(peak, I32), LANES)

    def step(index: Any, sums: list[Any]) -> list[Any]:
        codes = builder.load(builder.gep(source, [index]), align=1)
        distance = builder.sub(largest, (builder.sext if code is I16 else builder.zext)(codes, _TERMS))
        places = [builder.lshr(distance, _lanes(_TERMS, shift)) for shift in (COARSE_SHIFT, MIDDLE_SHIFT)]
        factors = [_look_up(builder, table, place) for table, place in zip(tables, [*places, distance], strict=True)]
        even, odd = (_product(builder, [side(builder, factor) for factor in factors]) for side in (_even, _odd))
        joined = builder.or_(builder.shl(odd, _lanes(_HALF, 32)), even)
        builder.store(builder.bitcast(joined, _TERMS), builder.gep(target, [index]), align=4)
        return [builder.add(sums[0], builder.add(even, odd))]

    (total,) = loop(builder, blocks, [_lanes(_HALF, 0)], step)
    parts = [builder.extract_element(total, ir.Constant(I32, i)) for i in range(_HALF.count)]
    result = parts[0]
    for part in parts[1:]:
        result = builder.add(result, part)
    return result


def _lanes(kind: Any, value: int) -> Any:
    return ir.Constant(kind, [value] * kind.count)


def _even(builder: Any, vector: Any) -> Any:
    return builder.and_(builder.bitcast(vector, _HALF), _lanes(_HALF, (1 << 32) - 1))


def _odd(builder: Any, vector: Any) -> Any:
    return builder.lshr(builder.bitcast(vector, _HALF), _lanes(_HALF, 32))


def _product(builder: Any, factors: list[Any]) -> Any:
    """In Q30, rounded down after each multiplication."""
    coarse, middle, fine = factors
    rough = builder.lshr(builder.mul(coarse, middle), _lanes(_HALF, _Q))
    return builder.lshr(builder.mul(rough, fine), _lanes(_HALF, _Q))


def _registers(builder: Any, address: Any, size: int) -> list[Any]:
    pointer = builder.inttoptr(address, _TERMS.as_pointer())
    return [builder.load(builder.gep(pointer, [ir.Constant(I64, i)]), align=4) for i in range(size // LANES)]


def _look_up(builder: Any, registers: list[Any], place: Any) -> Any:
    """An entry for each place: its lower bits choose from a pair of registers, the next one the pair."""
    permute = builder.module.declare_intrinsic(
        "llvm.x86.avx512.vpermi2var.d.512", (), ir.FunctionType(_TERMS, [_TERMS] * 3)
    )
    pairs = [builder.call(permute, [registers[i], place, registers[i + 1]]) for i in range(0, len(registers), 2)]
    if len(pairs) == 1:
        return pairs[0]
    upper = builder.icmp_unsigned("!=", builder.and_(place, _lanes(_TERMS, 2 * LANES)), _lanes(_TERMS, 0))
    return builder.select(upper, pairs[1], pairs[0])


exponentials_u8, exponentials_i16 = make_exponentials(False), make_exponentials(True)

EXPONENTIALS = {exponentials_u8: False, exponentials_i16: True}
"""Both, and whether the codes are int16."""
