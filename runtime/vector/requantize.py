"""From int32 sums in vector registers to codes, as LLVM code.

``(sum * m + 2^(n-1)) >> n`` needs only the upper half of the 64-bit product where n is at least `SHIFT_BASE`: the
rounding constant is a multiple of 2^32 then, and shifting in two steps is exact. Multipliers are doubled beforehand as
long as they fit, so that a smaller n means a factor above 1/8: the sums are limited where every code is saturated, and
shifted up.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from ..cpu.features import cpu_features
from .llvm import I8, I16, I32, I64, splat

_PACKS = {512: ("avx512bw", "avx512", ".512"), 256: ("avx2", "avx2", ""), 128: ("sse2", "sse2", ".128")}
"""By vector bits: the feature that has saturating packs, and how LLVM names them."""


def _lanes(kind: Any, value: int) -> Any:
    return ir.Constant(kind, [value] * kind.count)


def shuffled(builder: Any, a: Any, b: Any, order: Sequence[int]) -> Any:
    """The elements of a and b that ``order`` names, b's counted behind a's."""
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(order)), list(order)))


def limits(builder: Any, codes: Any, lo: Any, hi: Any) -> Any:
    """Vectors of codes limited to [lo, hi], int64; unsigned where they are bytes."""
    low, high = (splat(builder, builder.trunc(value, codes.type.element), codes.type.count) for value in (lo, hi))
    return limited(builder, codes, low, high, codes.type.element.width > 8)


def limited(builder: Any, values: Any, low: Any, high: Any, signed: bool = True) -> Any:
    """``values`` limited to [low, high]."""
    compare = builder.icmp_signed if signed else builder.icmp_unsigned
    values = builder.select(compare(">", values, low), values, low)
    return builder.select(compare("<", values, high), values, high)


class Scale:
    """Scales one vector of sums; ``load(i)`` gives the ``i``-th of its `SCALE_VECTORS`."""

    def __init__(self, builder: Any, load: Callable[[int], Any]) -> None:
        self.builder, self.load = builder, load

    def _low(self, vector: Any) -> Any:
        """The int32 of the even columns as int64."""
        builder, kind = self.builder, ir.VectorType(I64, vector.type.count // 2)
        half = _lanes(kind, 32)
        return builder.ashr(builder.shl(builder.bitcast(vector, kind), half), half)

    def _high(self, vector: Any) -> Any:
        """The int32 of the odd columns as int64."""
        kind = ir.VectorType(I64, vector.type.count // 2)
        return self.builder.ashr(self.builder.bitcast(vector, kind), _lanes(kind, 32))

    def is_raised(self) -> Any:
        """The lanes whose sums must be shifted up."""
        left = self.load(4)
        return self.builder.icmp_signed("!=", left, _lanes(left.type, 0))

    def raised(self, sums: Any) -> Any:
        """Sums shifted up; limited first, where their codes are saturated."""
        builder, left = self.builder, self.load(4)
        most = builder.lshr(_lanes(left.type, (1 << 31) - 1), left)
        return builder.shl(limited(builder, sums, builder.sub(_lanes(left.type, 0), most), most), left)

    def apply(self, sums: Any) -> Any:
        """The scaled and rounded sums, int32: below 2^30."""
        builder, count = self.builder, sums.type.count
        even = builder.bitcast(builder.mul(self._low(sums), self._low(self.load(0))), sums.type)
        odd = builder.bitcast(builder.mul(self._high(sums), self._low(self.load(1))), sums.type)
        upper = shuffled(builder, even, odd, [i + side for i in range(1, count, 2) for side in (0, count)])
        return builder.ashr(builder.add(upper, self.load(2)), self.load(3))


def raised(builder: Any, scales: Sequence[Scale], sums: Sequence[Any]) -> list[Any]:
    """The sums,
    shifted up where a factor is large: that is rare. The ``i``-th has the scale ``i`` modulo their number.
    """
    count = sums[0].type.count
    flags = functools.reduce(builder.or_, [builder.bitcast(scale.is_raised(), ir.IntType(count)) for scale in scales])
    before = builder.basic_block
    with builder.if_then(builder.icmp_unsigned("!=", flags, ir.Constant(flags.type, 0)), likely=False):
        changed = [scales[i % len(scales)].raised(value) for i, value in enumerate(sums)]
        inside = builder.basic_block
    result = []
    for value, other in zip(sums, changed, strict=True):
        phi = builder.phi(value.type)
        phi.add_incoming(value, before)
        phi.add_incoming(other, inside)
        result.append(phi)
    return result


def _pack(builder: Any, a: Any, b: Any, to_bytes: bool) -> Any:
    """Saturated to half the width; every 128 bits hold those of a, then those of b."""
    source = a.type.element
    target = ir.VectorType(I8 if to_bytes else I16, 2 * a.type.count)
    feature, name, suffix = _PACKS[a.type.count * source.width]
    if feature in cpu_features():
        kind = ir.FunctionType(target, [a.type, b.type])
        operation = "packuswb" if to_bytes else "packssdw"
        return builder.call(builder.module.declare_intrinsic(f"llvm.x86.{name}.{operation}{suffix}", (), kind), [a, b])
    low, high = (0, 255) if to_bytes else (-(1 << 15), (1 << 15) - 1)
    narrow = ir.VectorType(target.element, a.type.count)
    a, b = (builder.trunc(limited(builder, v, _lanes(v.type, low), _lanes(v.type, high)), narrow) for v in (a, b))
    lane, count = 128 // source.width, a.type.count
    return shuffled(
        builder, a, b, [first + side + i for first in range(0, count, lane) for side in (0, count) for i in range(lane)]
    )


def words(builder: Any, a: Any, b: Any) -> Any:
    """Two vectors of int32 as one of int16, saturated; by 128 bits those of a, then those of b."""
    return _pack(builder, a, b, False)


def octets(builder: Any, a: Any, b: Any) -> Any:
    """Two vectors of int16 as one of uint8, saturated; by 128 bits those of a, then those of b."""
    return _pack(builder, a, b, True)

