"""One linear layer as mathematics: a weight, what its inputs look like, and the grid its values must lie on.

A layer computes ``y = W x``. With weights ``Ŵ`` on a grid it errs by ``E = W - Ŵ``, and the expected squared error of
its outputs is ``tr(E H Eᵀ)`` with the Gram matrix ``H = E[x xᵀ]``. Where the layer has a bias, the bias can take back
the mean error ``E E[x]``; what is left is the same form with the covariance ``H - E[x] E[x]ᵀ``. Every solver picks
codes, scales, or both, so that this loss is small.

All arrays have a leading axis of groups: 1 for a dense layer, the number of groups for a grouped convolution, channels
for a depthwise one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.grids import BlockTables, Grid
from qcompiler.linear_algebra import matmul

__all__ = ["LayerProblem", "Solution"]

Array = NDArray[Any]

LARGEST_TEMPORARY = 2**19
"""Elements of a temporary array in computations over rows."""


@dataclass(frozen=True, eq=False)
class LayerProblem:
    """A weight to be put on a grid.

    Attributes:
        weight: float [G, R, K]: groups, rows (output channels of a group), reduction length.
        gram: float [G, K, K], ``E[x xᵀ]`` of each group's inputs.
        mean: float [G, K], ``E[x]``.
        grid: where the values must lie.
        corrects_mean: the layer has a bias that will take back the mean error, so only the covariance counts.
        tables: the levels of each block, which then share the scale of their row; the grid is one without blocks. None:
            all have the grid's.
    """

    weight: Array
    gram: Array
    mean: Array
    grid: Grid
    corrects_mean: bool = True
    tables: BlockTables | None = None

    @property
    def metric(self) -> NDArray[np.float64]:
        """float64 [G, K, K]: the matrix of the loss, the covariance or the Gram matrix; a new array at each call."""
        if not self.corrects_mean:
            return np.array(self.gram, np.float64)
        result = np.asarray(self.mean[:, :, None] * self.mean[:, None, :], np.float64)
        return np.subtract(self.gram, result, out=result)

    @property
    def blocks(self) -> int:
        """Number of scales of a row."""
        return 1 if self.grid.block is None else -(-self.weight.shape[2] // self.grid.block)

    def nearest(self, values: Array, rows: slice = slice(None)) -> NDArray[np.int16]:
        """The nearest level of each value [G, R, K] of these rows, in units of its scale."""
        return self.grid.nearest(values) if self.tables is None else self.tables.rows(rows).nearest(values)


@dataclass(frozen=True, eq=False)
class Solution:
    """Where a solver put the weights of a problem.

    Attributes:
        levels: int16 [G, R, K], each one of the grid's levels.
        scale: float32 [G, R, B], one scale per row and block.
    """

    levels: NDArray[np.int16]
    scale: NDArray[np.float32]

    def weight(self, block: int | None = None) -> NDArray[np.float32]:
        """``scale * level``: float32 [G, R, K]."""
        return np.asarray(spread_scale(self.scale, block, self.levels.shape[2]) * self.levels.astype(np.float32))


def spread_scale(scale: Array, block: int | None, products: int) -> Array:
    """Scales [G, R, B] as those of each weight, broadcastable to [G, R, K]."""
    return scale if block is None else np.repeat(scale, block, axis=2)[:, :, :products]


def multiply_metric(problem: LayerProblem, values: Array) -> NDArray[np.float64]:
    """``values @ problem.metric`` for float64 [G, R, K], without making the metric."""
    product = matmul(values, problem.gram)
    if problem.corrects_mean:
        product -= matmul(values, problem.mean[:, :, None]) * problem.mean[:, None, :]
    return np.asarray(product)


def loss_by_row(problem: LayerProblem, weight: Array) -> NDArray[np.float64]:
    """Expected squared output error [G, R], float64, with ``weight`` [G, R, K] in place of the problem's."""
    result, weight = np.empty(problem.weight.shape[:2]), np.broadcast_to(weight, problem.weight.shape)
    for rows in row_slices(problem):
        error = np.asarray(problem.weight[:, rows], np.float64) - weight[:, rows]
        result[:, rows] = np.einsum("grk,grk->gr", multiply_metric(problem, error), error)
    return result


def loss(problem: LayerProblem, weight: Array) -> float:
    """`loss_by_row` summed over all outputs."""
    return float(loss_by_row(problem, weight).sum())


def relative_loss(problem: LayerProblem, weight: Array) -> float:
    """`loss` over the energy of the outputs, without their mean where a bias holds it."""
    return loss(problem, weight) / max(loss(problem, np.zeros((1, 1, 1))), 1e-30)


def mean_error(problem: LayerProblem, weight: Array) -> NDArray[np.float64]:
    """``(W - Ŵ) E[x]`` of each output, what the bias must add: float64 [G, R]."""
    error = np.asarray(problem.weight, np.float64) - weight
    return np.asarray(np.einsum("grk,gk->gr", error, problem.mean))


def row_slices(problem: LayerProblem) -> list[slice]:
    """Consecutive ranges of rows, small enough for small temporaries: rows are independent of each other."""
    groups, rows, products = problem.weight.shape
    step = max(1, LARGEST_TEMPORARY // (groups * products))
    return [slice(first, min(first + step, rows)) for first in range(0, rows, step)]
