"""Block factors, chosen before levels: float block scales become one scale per row and a table per block.

Each block's best float scale says how far its table should reach; the scale of the row is tried around the one that the
largest of them asks for, and with each of these every block takes the table of least error. All of it by nearest
levels, errors counted by column. Any solver then chooses levels under these tables, and scales of rows, as it does on a
single grid.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from qcompiler.grids import BlockTables, block_levels
from qcompiler.solvers.base import positive, rounded
from qcompiler.solvers.clip import importance_clip
from qcompiler.solvers.problem import LayerProblem, Solution, row_slices

RATIOS = np.geomspace(0.55, 1.2, 12)
"""Scales of a row that are tried, relative to the one under which the block of the largest scale has the last table."""


def on_tables(problem: LayerProblem, importance: NDArray[np.float64]) -> tuple[LayerProblem, Solution]:
    """The same problem, its blocks on tables of levels, and nearest levels in these, to start from.

    Args:
        problem: its grid has a block.
        importance: [G, K], how much the squared error of a column counts.

    Raises:
        OptionError: the grid has too many levels for blocks.
    """
    from qcompiler.solvers.kernels import choose_tables, halves

    width, levels = problem.grid.block or problem.weight.shape[2], block_levels(problem.grid)
    wide = importance_clip(problem, importance)
    first = wide.max(axis=2, keepdims=True).astype(np.float64) * problem.grid.largest / np.abs(levels).max()
    scale, kinds, cells = np.empty(wide.shape[:2]), np.empty(wide.shape, np.uint8), halves(levels).astype(np.float64)
    for rows in row_slices(problem):
        part = np.ascontiguousarray(problem.weight[:, rows], np.float64)
        found, table = np.empty(part.shape[:2]), np.empty((*part.shape[:2], wide.shape[2]), np.uint8)
        choose_tables(part, importance, first[:, rows] * RATIOS, width, cells, found, table)
        scale[:, rows], kinds[:, rows] = found, table
    placed = replace(problem, grid=replace(problem.grid, block=None), tables=BlockTables(levels, width, kinds))
    return placed, rounded(placed, positive(scale[:, :, None]))
