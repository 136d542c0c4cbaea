"""Real factors as ``m / 2^n``, the operator that changes a grid, and the proof that an accumulator cannot overflow."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from qcompiler.errors import UnsupportedError
from qcompiler.lowering.code_grid import Coded, Target
from qcompiler.lowering.integer_graph import IntegerBuilder, Shape
from qcompiler.runtime import requant
from qcompiler.runtime.errors import MachineError

ACCUMULATOR_LIMIT = 2**31
"""An int32 accumulator must stay below this magnitude."""

DYNAMIC_LIMIT = 2**15
"""The largest size of a symbolic dimension over which a MatMul may sum."""

DYNAMIC_COUNT = 2**24
"""The most elements over which a reduction of symbolic size may run."""

NORM_LIMIT = 2**15
"""The most elements that one normalization may span."""

_SATURATING_BITS = 24
"""Smallest factor width (bits) at which its largest value saturates every code type."""


def fixed_point(factor: float, bits: int = 31) -> tuple[int, int]:
    """``(m, n)`` of ``requant``: ``factor ~ m / 2^n`` with ``|m| < 2^bits`` and ``1 <= n <= 62``.

    A factor of 2^29 and more becomes 2^29: both carry every sum but 0 beyond any code type.

    Raises:
        UnsupportedError: the factor is not finite, or too large for fewer bits: the grids do not fit each other.
    """
    if bits >= _SATURATING_BITS and math.isfinite(factor):
        largest = math.ldexp(1.0, bits - 2)
        factor = min(max(factor, -largest), largest)
    try:
        return requant.multiplier(factor, bits)
    except MachineError as error:
        raise UnsupportedError(f"{error}; its grids do not fit each other") from error


def wide_fixed_point(factor: float, largest: int) -> tuple[int, int]:
    """``(m, n)`` of ``requant64`` for accumulators up to ``largest``: m has as many bits (at most 31) as keep ``|a*m| <
    2^62``.

    Raises:
        UnsupportedError: fewer than 15 bits are left for m.
    """
    bits = min(31, 62 - int(largest).bit_length())
    if bits < 15:
        raise UnsupportedError(
            f"its sum may reach {largest:.3g}, which leaves too few bits for the factor; reduce fewer elements"
        )
    return fixed_point(factor, bits)


def fixed_points(factors: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`fixed_point` of each element."""
    pairs = [fixed_point(float(factor)) for factor in factors]
    return np.array([m for m, _ in pairs], np.int64), np.array([n for _, n in pairs], np.int64)


def requantized(out: IntegerBuilder, source: Coded, target: Target, factor: float, shape: Shape) -> Coded:
    """``factor * source`` on the target's grid; ``source`` itself where nothing changes."""
    grid = target.grid
    if factor == 1.0 and source.grid == grid and target.lo <= source.lo and source.hi <= target.hi:
        return source
    m, n = fixed_point(factor * source.grid.scale / grid.scale)
    attrs = {"x_zp": source.grid.zero_point, "m": m, "n": n, **target.attributes()}
    codes = out.op("Requantize", target.name, [source.tensor], attrs, grid.dtype, shape)
    return Coded(codes, grid, target.lo, target.hi)
