"""Piecewise linear functions of int16 codes: what the opcode ``piecewise`` computes, on arrays.

``segments`` lines of ``2^width_bits`` codes each, from the code ``first`` on; codes outside count as the nearest one
inside. In units of ``2^-fraction`` output codes a line starts at ``base`` and has risen by ``slope`` at the start of
the next one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SEGMENTS = (64, 128, 256)
"""How many lines there may be: one, two or four pairs of vector registers hold their bases."""

MOST_WIDTH_BITS = 10
MOST_FRACTION = 7


@dataclass(frozen=True)
class Piecewise:
    """A piecewise linear function with codes from ``lo`` to ``hi``.

    Attributes:
        base, slope: int16 [segments].
    """

    base: NDArray[np.int16]
    slope: NDArray[np.int16]
    first: int
    width_bits: int
    fraction: int
    lo: int
    hi: int

    def codes(self) -> NDArray[Any]:
        """int64 [65536]: the result for every int16 code in ascending order."""
        shift = self.width_bits + self.fraction
        starts = (self.base.astype(np.int64) << self.width_bits) + ((1 << shift) >> 1)
        value = starts[:, None] + self.slope.astype(np.int64)[:, None] * np.arange(1 << self.width_bits)
        value >>= shift
        inside = np.clip(value, self.lo, self.hi, out=value).reshape(-1)
        codes: NDArray[Any] = inside[np.clip(np.arange(-32768, 32768) - self.first, 0, inside.size - 1)]
        return codes
