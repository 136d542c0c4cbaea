"""The arithmetic of the machine on Python integers: unbounded, so nothing can overflow silently.

This is the specification. The compiled kernels are tested equal to it, number for number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from .errors import MachineError

MAX_SHIFT = 62


class Range(NamedTuple):
    """How a result becomes a code: ``min(max(v + zero_point, lo), hi)``."""

    zero_point: int
    lo: int
    hi: int

    def code(self, value: int) -> int:
        """The code of an integer result."""
        return min(max(value + self.zero_point, self.lo), self.hi)


def multiplier(real: float, bits: int = 31) -> tuple[int, int]:
    """``(m, n)`` with ``real`` close to ``m * 2**-n``, ``|m| < 2**bits`` and ``1 <= n <= 62``.

    Raises:
        MachineError: ``real`` is not finite, or so large that n would be below 1.
    """
    if not math.isfinite(real):
        raise MachineError(f"a scale ratio is {real}; it must be finite")
    if real == 0:
        return 0, 1
    mantissa, exponent = math.frexp(abs(real))
    m, n = round(math.ldexp(mantissa, bits)), bits - exponent
    if m == 1 << bits:
        m, n = m >> 1, n - 1
    if n > MAX_SHIFT:
        excess = n - MAX_SHIFT
        m, n = (m + (1 << (excess - 1))) >> excess, MAX_SHIFT
    if n < 1:
        raise MachineError(f"a scale ratio of {real} is too large for a {bits}-bit multiplier")
    return (m if real > 0 else -m), n


def rounding_shift(value: int, n: int) -> int:
    """``value / 2**n`` rounded to the nearest integer, ties up; n = 0 changes nothing."""
    return (value + ((1 << n) >> 1)) >> n


def requant(a: int, m: int, n: int) -> int:
    """``a * m * 2**-n``, one rounding, ties up. `requant64` is the same formula; only the bounds of a and m differ."""
    return rounding_shift(a * m, n)


def clip32(value: int) -> int:
    """``value`` saturated to int32."""
    return min(max(value, -(1 << 31)), (1 << 31) - 1)


def clip16(value: int) -> int:
    """``value`` saturated to int16."""
    return min(max(value, -(1 << 15)), (1 << 15) - 1)


def add(a: int, a_m: int, b: int, b_m: int, n: int) -> int:
    """Two scaled terms (zero points already subtracted), one rounding."""
    return rounding_shift(a * a_m + b * b_m, n)


def divide(a: int, b: int, m: int, n: int, out: Range) -> int:
    """Code of the quotient of two numbers (zero points already subtracted), rounded half up."""
    numerator, denominator = a * m, b << n
    if denominator < 0:
        numerator, denominator = -numerator, -denominator
    if denominator == 0:
        return out.hi if numerator > 0 else out.lo if numerator < 0 else out.code(0)
    return out.code((2 * numerator + denominator) // (2 * denominator))


def mean_code(total: int, count: int, m: int, n: int, out: Range) -> int:
    """Code of ``total * m * 2**-n / count``, rounded half up."""
    denominator = count << n
    return out.code((2 * total * m + denominator) // (2 * denominator))


def exponential(distance: int, coarse: Sequence[int], middle: Sequence[int], fine: Sequence[int]) -> int:
    """``exp`` in Q30 of a distance below 65536, by tables of 32, 32 and 64 entries in Q30."""
    return (((coarse[distance >> 11] * middle[distance >> 6 & 31]) >> 30) * fine[distance & 63]) >> 30


def softmax(x: Sequence[int], tables: Sequence[Sequence[int]], m: int, n: int, out: Range) -> list[int]:
    """Codes of the softmax of one row of codes; the three tables are those of `exponential`."""
    peak = max(x)
    terms = [exponential(peak - v, *tables) for v in x]
    total = sum(terms)
    inverse = (1 << 61) // total if total else 0
    return [out.code(requant((term * inverse) >> 30, m, n)) for term in terms]


def norm_epsilon(epsilon: int, epsilon_q: int, count: int) -> int:
    """The integer epsilon term of a layer norm over ``count`` elements."""
    return epsilon if epsilon > 0 else max(1, (epsilon_q * count * count) >> 16)


def layernorm(
    x: Sequence[int], gamma: Sequence[int], beta: Sequence[int], epsilon: int, n: int, out: Range
) -> list[int]:
    """Codes of the layer norm of one row of codes; ``epsilon`` is `norm_epsilon`."""
    count, first, second = len(x), sum(x), sum(v * v for v in x)
    variance = count * second - first * first + epsilon
    t = 0
    while variance << (2 * (t + 1)) < 1 << 62:
        t += 1
    inverse = (1 << 61) // math.isqrt(variance << (2 * t))
    scaled = (((count * v - first) * inverse) >> (41 - t) for v in x)
    return [out.code(rounding_shift(z * g + b, n)) for z, g, b in zip(scaled, gamma, beta, strict=True)]
