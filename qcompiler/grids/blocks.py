"""Block scales: each block of neighbouring weights of a row has a small integer factor; the row stays int8.

Block b of a row stands for ``s * T[f_b][code]`` with the one float scale s of the row and one of 16 tables of int8
levels, the levels of the grid times a factor of 3 … 18, rounded to integers: ``T[f] = round(levels * m * (3 + f) /
18)``. ``m`` is the largest integer with which the levels stay within the limit, so the last table holds the grid itself
and a layer without blocks is a layer whose blocks all use that one.

What is rounded is the table, once, and the levels of weights are chosen among its entries: the rounding error moves
levels, it is not added to weights. 64 as limit costs nothing, then: measured on Gaussian and Laplace weights, factors
of 4 bits and integer levels together lose 1 to 5 % of the squared error of float scales, whether the limit is 64 or
127.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from qcompiler.errors import OptionError
from qcompiler.grids.grid import EDGE, Array, Grid, level_lookup

__all__ = ["BLOCKS", "FACTORS", "MOST_LEVELS", "BlockTables", "block_levels"]

BLOCKS = (32, 64, 128)
"""Block sizes: weights along K that may share a factor."""

FACTORS = np.arange(3, 19)
MOST_LEVELS = 16
"""Most levels of a grid that admits blocks."""

PAIR_SAFE_LEVEL = 64
"""Largest level with which two same-sign weights sum to at most 128, exact on int8 kernels that saturate."""


@dataclass(frozen=True, eq=False)
class BlockTables:
    """Which levels the weights of a problem may take, block by block.

    Attributes:
        levels: int16 [T, L], each row ascending, with 0 among it; neighbours may be equal.
        width: weights along K in a block; the last block of a row may have fewer.
        kinds: uint8 [G, R, B], the table of each block.
    """

    levels: NDArray[np.int16]
    width: int
    kinds: NDArray[np.uint8]

    @cached_property
    def _lookup(self) -> NDArray[np.int16]:
        return np.stack([level_lookup(row) for row in self.levels])

    def rows(self, rows: slice) -> BlockTables:
        """Those of some of the rows."""
        return replace(self, kinds=self.kinds[:, rows])

    def spread(self, products: int) -> NDArray[np.uint8]:
        """The table of each weight: uint8 [G, R, K]."""
        return np.repeat(self.kinds, self.width, axis=2)[:, :, :products]

    def nearest(self, values: Array) -> NDArray[np.int16]:
        """The nearest level of each value [G, R, K], in units of the scale; ties as `Grid.nearest` has them."""
        halves = np.clip(np.multiply(values, 2), -EDGE, EDGE)
        quarter = np.floor(halves).astype(np.int16) + np.ceil(halves).astype(np.int16)
        return np.asarray(self._lookup[self.spread(values.shape[2]), quarter + 2 * EDGE])


def block_levels(grid: Grid) -> NDArray[np.int16]:
    """The levels of a grid under each factor: int16 [16, L]. OptionError for a grid of more than 16 levels."""
    if len(grid.levels) > MOST_LEVELS:
        raise OptionError(
            f"grid '{grid.name}' has {len(grid.levels)} levels; blocks need one of at most "
            f"{MOST_LEVELS}, such as int4 or nf4"
        )
    whole = max(PAIR_SAFE_LEVEL // grid.largest, 1)
    return np.asarray(np.rint(grid.levels * (whole * FACTORS[:, None] / FACTORS[-1])), np.int16)
