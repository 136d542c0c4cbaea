"""Grids whose levels a formula gives.

* ``power(a, b)``: magnitudes ``(i / n)^(1/a)``, i = 0 … n = 2^(b-1) - 1 (PowerQuant, NUPES). ``a = 1`` is uniform, ``a
  < 1`` is denser near zero; ``a = 1/2`` has squares. The power keeps products, not sums: weights are decoded to these
  levels before anything is added up.
* ``post(b)``: 0 and the powers of the square root of two ``2^(-k/2)``, k = 0 … n - 1 (POST).
* ``nf4``: quantiles of the normal distribution (QLoRA).
* ``floating(e, m)``: a sign, e exponent and m mantissa bits, no infinities (LLM-FP4); subnormals share the step of the
  first binade.
* ``fp4_bnb``: the 4-bit float of bitsandbytes, which is none of these.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.errors import OptionError
from qcompiler.grids.grid import LARGEST_LEVEL, Grid, integer_levels

__all__ = ["floating", "fp4_bnb", "nf4", "post", "power"]

NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224, 0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023, 1.0,
)  # fmt: skip
BNB = (0.0625, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)

Array = NDArray[Any]


def _signed(name: str, magnitudes: Array, block: int | None, largest: int) -> Grid:
    return Grid(name, integer_levels(np.concatenate([-magnitudes, magnitudes]), largest), block)


def power(exponent: float, bits: int, block: int | None = None, largest: int = LARGEST_LEVEL) -> Grid:
    """Levels evenly spaced once raised to ``exponent``. OptionError outside 2 to 8 bits or 0.1 to 4."""
    if not 2 <= bits <= 8:
        raise OptionError(f"a power grid has 2 to 8 bits, not {bits}")
    if not 0.1 <= exponent <= 4.0:
        raise OptionError(f"the exponent of a power grid lies between 0.1 and 4, not at {exponent}")
    count = 2 ** (bits - 1) - 1
    grid = _signed(f"power{bits}({exponent:g})", (np.arange(1, count + 1) / count) ** (1.0 / exponent), block, largest)
    return replace(grid, exponent=exponent)


def post(bits: int, block: int | None = None, largest: int = LARGEST_LEVEL) -> Grid:
    """Powers of the square root of two. OptionError outside 2 to 5 bits: further powers round to the same integers."""
    if not 2 <= bits <= 5:
        raise OptionError(f"a post grid has 2 to 5 bits, not {bits}")
    return _signed(f"post{bits}", 2.0 ** (-np.arange(2 ** (bits - 1) - 1) / 2), block, largest)


def nf4(block: int | None = None, largest: int = LARGEST_LEVEL) -> Grid:
    """The 16 levels of NormalFloat 4."""
    return Grid("nf4", integer_levels(np.array(NF4), largest), block)


def floating(exponent_bits: int, mantissa_bits: int, block: int | None = None) -> Grid:
    """A 4-bit float: e2m1 (OCP), e1m2 (evenly spaced) or e3m0 (powers of two). OptionError for any other."""
    if (exponent_bits, mantissa_bits) not in ((2, 1), (1, 2), (3, 0)):
        raise OptionError(f"a 4-bit float is e2m1, e1m2 or e3m0, not e{exponent_bits}m{mantissa_bits}")
    fraction = np.arange(2**mantissa_bits) / 2**mantissa_bits
    normal = [(1 + fraction) * 2.0**exponent for exponent in range(2**exponent_bits - 1)]
    magnitudes = np.concatenate([fraction, *normal])
    return _signed(f"fp4_e{exponent_bits}m{mantissa_bits}", magnitudes, block, LARGEST_LEVEL)


def fp4_bnb(block: int | None = None, largest: int = LARGEST_LEVEL) -> Grid:
    """The 4-bit float of bitsandbytes."""
    return _signed("fp4_bnb", np.array(BNB), block, largest)
