"""The loops over columns that NumPy cannot vectorize, one row of a weight after another.

All of them live in one file: Numba's cache on disk does not notice that a function called from another file has changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

_F = TypeVar("_F", bound=Callable[..., Any])
Floats = NDArray[np.float64]
Levels = NDArray[np.int16]


def jit(function: _F) -> _F:
    """Compile at the first call and keep the machine code on disk."""
    return numba.njit(nogil=True, cache=True)(function)  # type: ignore[no-any-return]


@jit
def nearest_index(thresholds: Floats, value: float) -> int:
    """Number of thresholds that are not above ``value``: the index of its nearest level."""
    low, high = 0, len(thresholds)
    while low < high:
        middle = (low + high) >> 1
        if thresholds[middle] <= value:
            low = middle + 1
        else:
            high = middle
    return low


@jit
def round_columns(
    targets: Floats,
    weight: Floats,
    scale: Floats,
    factor: Floats,
    first: int,
    grid_levels: Levels,
    thresholds: Floats,
    levels: Levels,
    error: Floats,
) -> None:
    """Round columns ``first``, ``first + 1``, ... from the last to the first, each with the errors of those rounded before made good.

    Args:
        targets: [G, R, C], what these columns should be given the errors of all columns after them; changed.
        weight: [G, R, K], the exact weights.
        scale: [G, R, K], positive.
        factor: [G, K, K], what a unit of error in a column (first index) adds to the target of an earlier one (second index).
        first: the first of the C columns.
        grid_levels: int16 [L], the levels of the grid.
        thresholds: [L - 1], where the nearest level changes.
        levels: int16 [G, R, K], the levels chosen; written.
        error: [G, R, K], weight minus chosen value; written.
    """
    groups, rows, columns = targets.shape
    for group in range(groups):
        for row in range(rows):
            target = targets[group, row]
            for inner in range(columns - 1, -1, -1):
                column = first + inner
                step = scale[group, row, column]
                level = grid_levels[nearest_index(thresholds, target[inner] / step)]
                difference = weight[group, row, column] - step * level
                levels[group, row, column] = level
                error[group, row, column] = difference
                for earlier in range(inner):
                    target[earlier] += difference * factor[group, column, first + earlier]
