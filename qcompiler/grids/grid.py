"""What a grid is.

A `Grid` holds at most 256 integer levels. A weight on it is ``scale * level`` with one scale an output channel, or one
a block of ``block`` neighbouring products. Every level fits int8, so a layer on any grid is an int8 layer whose codes
take few values: one kernel runs them all, and fewer bits are a matter of storage.

Levels that a formula gives as fractions of the largest are rounded to integers (`integer_levels`): the error is at most
half a step, that is ``1 / (2 * 127)`` of the largest level.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qcompiler.errors import OptionError

__all__ = ["LARGEST_LEVEL", "Grid", "GridFamily", "byte_parts", "integer_levels", "uniform"]

LARGEST_LEVEL = 127
EDGE = 2 * (LARGEST_LEVEL + 1)
"""Half steps beyond which every value takes an outermost level."""
_EXACT = 1e-9
"""Distance from an integer within which a multiple of the largest level counts as one."""

Array = NDArray[Any]


class GridFamily(Protocol):
    """Something that names the grid of a weight: a `Grid` itself, or a form whose levels are fitted to the weight."""

    @property
    def name(self) -> str:
        """As the command line calls it."""

    @property
    def bits(self) -> int:
        """Bits of a stored code (of each branch of a split grid)."""

    @property
    def block(self) -> int | None:
        """Weights along K that share a scale; None: one scale per output channel."""

    def fit(self, weight: Array, metric: Array | None = None) -> Grid:
        """The grid for one layer's weight.

        Args:
            weight: float [G, R, K], as a `LayerProblem` has it.
            metric: float [G, K, K], the matrix of its loss (of which the diagonal weighs the errors); None: all weights
                count the same.
        """

    def within(self, largest: int) -> GridFamily:
        """The same form with levels of at most ``largest``."""


@dataclass(frozen=True, eq=False)
class Grid:
    """The levels of a weight; as a `GridFamily` it fits every weight as it is.

    Attributes:
        name: as the command line calls it.
        levels: int16 [L], ascending, with 0 among them, within [-127, 127].
        block: weights along K that share a scale; None: one scale per output channel.
        exponent: that of a power grid (`power`); None for any other.

    Raises:
        ValueError: the levels break a rule above.
    """

    name: str
    levels: NDArray[np.int16]
    block: int | None = None
    exponent: float | None = None
    _by_quarter: NDArray[np.int16] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        levels = self.levels
        if levels.dtype != np.int16 or levels.ndim != 1 or not 2 <= len(levels) <= 256:
            raise ValueError(
                f"grid '{self.name}' needs 2 to 256 int16 levels in one dimension, not {levels.dtype} {levels.shape}"
            )
        if not (np.diff(levels) > 0).all() or 0 not in levels or np.abs(levels).max() > LARGEST_LEVEL:
            raise ValueError(
                f"levels of grid '{self.name}' must ascend, hold 0 and stay within +-{LARGEST_LEVEL}: {levels.tolist()}"
            )
        object.__setattr__(self, "_by_quarter", level_lookup(levels))

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
        """The nearest level of each value / scale. Ties: the even level, or the smaller of two even or two odd ones."""
        if self.is_uniform:
            return np.clip(np.rint(values), self.levels[0], self.levels[-1]).astype(np.int16)
        halves = np.clip(np.multiply(values, 2), -EDGE, EDGE)
        quarter = np.floor(halves).astype(np.int16) + np.ceil(halves).astype(np.int16)
        return np.asarray(self._by_quarter[quarter + 2 * EDGE])

    def fit(self, weight: Array, metric: Array | None = None) -> Grid:
        """This grid."""
        del weight, metric
        return self

    def within(self, largest: int) -> Grid:
        """The same levels in proportion, rounded; fewer where steps are 1, for they cannot be smaller."""
        if self.largest <= largest:
            return self
        smaller = (
            self.levels[np.abs(self.levels) <= largest]
            if self.is_uniform
            else np.rint(self.levels * (largest / self.largest))
        )
        return Grid(self.name, np.unique(smaller).astype(np.int16), self.block)


def thresholds(levels: NDArray[np.int16]) -> NDArray[np.float64]:
    """float64 [L - 1]: the index of the nearest level is the number of thresholds not above a value."""
    low, high = levels[:-1].astype(np.int64), levels[1:].astype(np.int64)
    middle = (low + high) / 2
    to_low = np.where((low + high) % 2 == 0, np.abs(low) < np.abs(high), low % 2 == 0)
    return np.where(to_low, np.nextafter(middle, np.inf), middle)


def level_lookup(levels: NDArray[np.int16]) -> NDArray[np.int16]:
    """The nearest of ascending levels for every multiple of 1/4 from -256 to 256.

    Ties lie on multiples of 1/2, so all values between two of those have the level of the odd quarter between them.
    """
    quarters = np.arange(-2 * EDGE, 2 * EDGE + 1) / 4
    return np.asarray(levels[np.searchsorted(thresholds(levels), quarters, side="right")])


def integer_levels(fractions: Array, largest: int = LARGEST_LEVEL) -> NDArray[np.int16]:
    """Integer levels in proportion to ``fractions``.

    They are exact, and the smallest such integers, where some multiple within ``largest`` makes all of them integers;
    else the fractions of the largest magnitude, times ``largest``, rounded: each is off by at most ``1 / (2 *
    largest)`` of it.

    Args:
        fractions: float [L] in any order, finite, at least one not 0; 0 is added where it is missing.
        largest: largest magnitude of a level.
    """
    values = np.unique(np.append(np.asarray(fractions, np.float64), 0.0))
    values /= np.abs(values).max()
    for multiple in range(1, largest + 1):
        scaled = values * multiple
        if np.abs(scaled - np.rint(scaled)).max() < _EXACT:
            return np.asarray(np.rint(scaled), np.int16)
    return np.unique(np.asarray(np.rint(values * largest), np.int16))


def uniform(bits: int, block: int | None = None) -> Grid:
    """The symmetric uniform grid of 2 to 8 bits, ±(2^(bits-1) - 1); OptionError for another number of bits."""
    if not 2 <= bits <= 8:
        raise OptionError(f"a uniform grid has 2 to 8 bits, not {bits}")
    largest = 2 ** (bits - 1) - 1
    return Grid(f"int{bits}", np.arange(-largest, largest + 1, dtype=np.int16), block)


def byte_parts(weight: Array) -> tuple[Array, Array]:
    """Weights [C, ...] as those nearest on an 8-bit grid of each channel, and what that leaves: weights of 16 bits as a
    sum of two of 8.
    """
    step = np.abs(weight).max(axis=tuple(range(1, weight.ndim)), keepdims=True) / weight.dtype.type(LARGEST_LEVEL)
    nearest = (np.rint(weight / np.where(step, step, 1)) * step).astype(weight.dtype)
    return nearest, weight - nearest
