"""What the learning solvers share: where they start, the loss of a layer with its gradient, and Adam."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.linear_algebra import matmul
from qcompiler.solvers.base import Solver, keep_best, nearest_solution, part_of, rows_of, stack_rows
from qcompiler.solvers.clip import OptimalClip
from qcompiler.solvers.problem import LayerProblem, Solution, row_slices

Array = NDArray[Any]


class LearningSolver(Solver):
    """Improves on the scales and levels of a start, by default those of `OptimalClip`, some rows at a time."""

    def solve(self, problem: LayerProblem, start: Solution | None = None, seed: int = 0) -> Solution:
        """See `Solver.solve`."""
        first = OptimalClip().solve(problem) if start is None else start
        metric = normalized_metric(problem)
        parts = [self._rows(rows_of(problem, rows), metric, part_of(first, rows)) for rows in row_slices(problem)]
        return keep_best(problem, nearest_solution(problem), first, stack_rows(parts))

    @abstractmethod
    def _rows(self, problem: LayerProblem, metric: Array, start: Solution) -> Solution:
        """What is learned for the rows of ``problem``; ``metric`` is `normalized_metric` of the whole."""


@dataclass(frozen=True, eq=False)
class Objective:
    """Loss of each row in its own unit, so that one learning rate and penalty weight suit every layer.

    Attributes:
        weight: float [G, R, K].
        metric: float [G, K, K].
        unit: float [G, R, 1], what counts as a loss of 1 for each weight of the row.
    """

    weight: Array
    metric: Array
    unit: Array

    def __call__(self, values: Array) -> tuple[Array, Array]:
        """The loss of each row [G, R] with ``values`` for the weights, and its gradient by the values [G, R, K]."""
        error = self.weight - values
        product = matmul(error, self.metric) / self.unit
        return np.einsum("grk,grk->gr", product, error), -2 * product


def objective_of(problem: LayerProblem, metric: Array, start: Solution, dtype: type[Any] = np.float32) -> Objective:
    """The objective in which each weight of ``start`` bears a loss of 1 on average.

    Args:
        problem: what is solved.
        metric: that of the problem divided by any number.
        start: sets the unit.
        dtype: of all computations.
    """
    weight = np.asarray(problem.weight, dtype)
    error = weight - start.weight(problem.grid.block).astype(dtype)
    losses = np.einsum("grk,grk->gr", matmul(error, metric), error)[:, :, None]
    return Objective(weight, metric, np.where(losses > 0, losses, 1).astype(dtype) / weight.shape[2])


def normalized_metric(problem: LayerProblem, dtype: type[Any] = np.float32) -> Array:
    """The metric in units of its largest element, which fits float32 however strong the inputs are."""
    metric = problem.metric
    largest = np.abs(metric).max()
    if largest > 0:
        metric /= largest
    return metric.astype(dtype)


class Adam:
    """Adam (Kingma and Ba, 2015) on one array, changed in place."""

    def __init__(self, like: Array, decay: float = 0.9, square_decay: float = 0.999) -> None:
        self._mean, self._square = np.zeros_like(like), np.zeros_like(like)
        self._decay, self._square_decay, self._steps = decay, square_decay, 0

    def step(self, values: Array, gradient: Array, rate: float | Array) -> None:
        """Move ``values`` against the gradient."""
        self._steps += 1
        self._mean += (1 - self._decay) * (gradient - self._mean)
        self._square += (1 - self._square_decay) * (gradient * gradient - self._square)
        deviation = np.sqrt(self._square / (1 - self._square_decay**self._steps)) + np.finfo(np.float32).tiny
        values -= rate / (1 - self._decay**self._steps) * self._mean / deviation


def annealed(first: float, last: float, progress: float) -> float:
    """From ``first`` at progress 0 to ``last`` at 1, geometrically."""
    return float(first * (last / first) ** progress)
