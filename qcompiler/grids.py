"""Grids: the values a weight may take, as integer levels times a scale.

A `Grid` holds at most 256 integer levels. A weight on it is ``scale * level`` with one scale an output channel, or one a block of ``block``
neighbouring products. Every level fits int8, so a layer on any grid is an int8 layer whose codes take few values: one kernel runs them all,
and fewer bits are a matter of storage.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.errors import OptionError

__all__ = ["Grid", "uniform"]

LARGEST_LEVEL = 127

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Grid:
    """The levels of a weight.

    Attributes:
        name: as the command line calls it.
        levels: int16 [L], ascending, with 0 among them, within [-127, 127].
        block: products along a row that share a scale; None: the whole row.

    Raises:
        ValueError: the levels break a rule above.
    """

    name: str
    levels: NDArray[np.int16]
    block: int | None = None
    _thresholds: NDArray[np.float64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        levels = self.levels
        if levels.dtype != np.int16 or levels.ndim != 1 or not 2 <= len(levels) <= 256:
            raise ValueError(f"grid '{self.name}' needs 2 to 256 int16 levels in one dimension, not {levels.dtype} {levels.shape}")
        if not (np.diff(levels) > 0).all() or 0 not in levels or np.abs(levels).max() > LARGEST_LEVEL:
            raise ValueError(f"levels of grid '{self.name}' must ascend, hold 0 and stay within +-{LARGEST_LEVEL}: {levels.tolist()}")
        object.__setattr__(self, "_thresholds", _thresholds(levels))

    @property
    def largest(self) -> int:
        """Largest magnitude of a level."""
        return int(np.abs(self.levels).max())

    @property
    def bits(self) -> int:
        """Bits of one stored code."""
        return int(len(self.levels) - 1).bit_length()

    @property
    def is_uniform(self) -> bool:
        """True where neighbouring levels are 1 apart: the nearest one is a rounding."""
        return bool((np.diff(self.levels) == 1).all())

    def nearest(self, values: Array) -> NDArray[np.int16]:
        """The nearest level of each value, in units of the scale. A tie goes to the even level, or to the smaller of two even or two odd ones."""
        if self.is_uniform:
            return np.clip(np.rint(values), self.levels[0], self.levels[-1]).astype(np.int16)
        return np.asarray(self.levels[np.searchsorted(self._thresholds, values, side="right")])


def _thresholds(levels: NDArray[np.int16]) -> NDArray[np.float64]:
    """float64 [L - 1]: a value takes the level whose index is the number of thresholds that are not above it."""
    low, high = levels[:-1].astype(np.int64), levels[1:].astype(np.int64)
    middle = (low + high) / 2
    same_parity = (low + high) % 2 == 0
    to_low = np.where(same_parity, np.abs(low) < np.abs(high), low % 2 == 0)
    return np.where(to_low, np.nextafter(middle, np.inf), middle)


def uniform(bits: int, block: int | None = None) -> Grid:
    """The symmetric uniform grid of 2 to 8 bits: levels -(2^(bits-1) - 1) … 2^(bits-1) - 1. OptionError for another number of bits."""
    if not 2 <= bits <= 8:
        raise OptionError(f"a uniform grid has 2 to 8 bits, not {bits}")
    largest = 2 ** (bits - 1) - 1
    return Grid(f"int{bits}", np.arange(-largest, largest + 1, dtype=np.int16), block)
