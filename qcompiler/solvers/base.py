"""What every solver is, and what all of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.grids.grid import thresholds
from qcompiler.linear_algebra import matmul
from qcompiler.solvers.problem import LayerProblem, Solution, loss_by_row, multiply_metric, row_slices, spread_scale

Array = NDArray[Any]


class Solver(ABC):
    """Puts the weights of a problem on its grid.

    A solver is a frozen dataclass whose fields are its options. Its answer is never worse, in no output channel, than
    rounding to the nearest level, nor than the solution it was given to start from.
    """

    @abstractmethod
    def solve(self, problem: LayerProblem, start: Solution | None = None, seed: int = 0) -> Solution:
        """A solution of ``problem``; ``start`` is one to improve on, ``seed`` decides all random choices."""

    def tuned(self, fit: LayerProblem, held: LayerProblem) -> Solver:
        """The solver with the options that, solved on ``fit``, lose least on ``held`` (other vectors)."""
        return self

    def importance(self, problem: LayerProblem) -> NDArray[np.float64]:
        """How much the squared error of a column counts when scales are chosen before levels: [G, K]."""
        diagonal = np.diagonal(problem.gram, axis1=1, axis2=2) - (problem.mean**2 if problem.corrects_mean else 0)
        return np.asarray(np.maximum(diagonal, 0))

    def hasty(self) -> Solver:
        """The same solver with less effort, to compare problems by what it finds."""
        return self


def nearest_solution(problem: LayerProblem) -> Solution:
    """Each weight on its nearest level; the scale puts the largest weight of a row (or block) on the largest level."""
    products, tables = problem.weight.shape[2], problem.tables
    width = problem.grid.block if tables is None else tables.width
    largest = np.maximum.reduceat(np.abs(problem.weight), np.arange(0, products, width or products), axis=2)
    if tables is None:
        return rounded(problem, positive(largest / problem.grid.largest))
    reach = np.maximum(np.abs(tables.levels).max(axis=1), 1)[tables.kinds]
    return rounded(problem, positive((largest / reach).max(axis=2, keepdims=True)))


def positive(scale: Array) -> NDArray[np.float32]:
    """``scale`` as float32, 1 where it is no positive normal number: a row of zeros has any scale."""
    narrow = np.asarray(scale, np.float32)
    return np.where(np.isfinite(narrow) & (narrow >= np.finfo(np.float32).tiny), narrow, np.float32(1))


def rounded(problem: LayerProblem, scale: NDArray[np.float32]) -> Solution:
    """Every weight on its nearest level under the given scale [G, R, B]."""
    levels = np.empty(problem.weight.shape, np.int16)
    for row in range(0, problem.weight.shape[1], 256):
        part = slice(row, row + 256)
        levels[:, part] = problem.nearest(
            np.asarray(problem.weight[:, part], np.float64) / spread(problem, scale[:, part]), part
        )
    return Solution(levels, scale)


def spread(problem: LayerProblem, scale: Array) -> Array:
    """The scale of each weight, broadcastable to [G, R, K]."""
    return spread_scale(scale, problem.grid.block, problem.weight.shape[2])


def tables_of(problem: LayerProblem) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """All tables of levels [T, L], each ascending, and which one each weight is on [G, R, K]."""
    if problem.tables is None:
        return problem.grid.levels[None], np.zeros(problem.weight.shape, np.uint8)
    return problem.tables.levels, problem.tables.spread(problem.weight.shape[2])


def limits(tables: NDArray[np.int16]) -> NDArray[np.float64]:
    """float64 [T, L - 1], where the nearest level of each table [T, L] changes."""
    return np.stack([thresholds(levels) for levels in tables])


def rows_of(problem: LayerProblem, rows: slice) -> LayerProblem:
    """The problem of some of the rows: a view."""
    return replace(problem, weight=problem.weight[:, rows], tables=problem.tables and problem.tables.rows(rows))


def part_of(solution: Solution, rows: slice) -> Solution:
    """The solution of some of the rows: a view."""
    return Solution(solution.levels[:, rows], solution.scale[:, rows])


def stack_rows(parts: list[Solution]) -> Solution:
    """The solution whose rows are those of all parts in their order."""
    return Solution(
        np.concatenate([part.levels for part in parts], axis=1), np.concatenate([part.scale for part in parts], axis=1)
    )


def losses_of(problem: LayerProblem, solution: Solution) -> NDArray[np.float64]:
    """The loss of each row: float64 [G, R]."""
    parts = [(rows_of(problem, rows), part_of(solution, rows)) for rows in row_slices(problem)]
    return np.concatenate([loss_by_row(problem, part.weight(problem.grid.block)) for problem, part in parts], axis=1)


def keep_best(problem: LayerProblem, first: Solution, *others: Solution | None) -> Solution:
    """Row by row the solution with the smallest loss, of equals the earliest."""
    return best_of(problem, (first, *(other for other in others if other is not None)))


def best_of(problem: LayerProblem, solutions: Iterable[Solution]) -> Solution:
    """Row by row the solution with the smallest loss, of equals the earliest. There is at least one."""
    every = iter(solutions)
    first = next(every)
    best = Best(first, losses_of(problem, first))
    for other in every:
        best.show(other, losses_of(problem, other))
    return best.solution


class Best:
    """Row by row the best of the solutions shown so far."""

    def __init__(self, solution: Solution, losses: NDArray[np.float64]) -> None:
        self.solution, self.losses = solution, losses

    def show(self, solution: Solution, losses: NDArray[np.float64]) -> None:
        """Take the rows [G, R] whose loss is smaller than that of all before."""
        better = losses < self.losses
        self.solution, self.losses = choose(better, solution, self.solution), np.where(better, losses, self.losses)


def choose(better: NDArray[np.bool_], this: Solution, that: Solution) -> Solution:
    """``this`` in the rows [G, R] where ``better``, ``that`` elsewhere."""
    where = better[:, :, None]
    return Solution(np.where(where, this.levels, that.levels), np.where(where, this.scale, that.scale))


def refit_scale(
    problem: LayerProblem, solution: Solution, product: NDArray[np.float64] | None = None
) -> tuple[Solution, NDArray[np.float64]]:
    """Least-squares scales for fixed levels, ``<W, L> / <L, L>`` in the loss metric; exact for one scale per row.

    With several blocks one after the other takes its minimum while the others stay: the loss never rises. A scale that
    would not be positive stays as it is.

    Args:
        problem: what is solved.
        solution: its levels stay.
        product: ``weight @ metric`` where it is known.

    Returns:
        The solution and the loss of each row, float64 [G, R].
    """
    weight = np.asarray(problem.weight, np.float64)
    width = problem.grid.block or weight.shape[2]
    scale = solution.scale.copy()
    moved = np.empty(0)
    if problem.blocks == 1:
        moved = multiply_metric(problem, solution.levels.astype(np.float64))
        gradient = (multiply_metric(problem, weight) if product is None else product) - scale * moved
    else:
        gradient = multiply_metric(problem, weight - spread(problem, scale) * solution.levels.astype(np.float64))
    for block in range(problem.blocks):
        columns = slice(block * width, (block + 1) * width)
        levels = solution.levels[:, :, columns].astype(np.float64)
        if problem.blocks > 1:
            moved = multiply_columns(problem, levels, columns)
        above = np.einsum("grk,grk->gr", gradient[:, :, columns], levels)
        below = np.einsum("grk,grk->gr", moved[:, :, columns], levels)
        old = scale[:, :, block].copy()
        new = (old + np.divide(above, below, out=np.zeros_like(above), where=below > 0)).astype(np.float32)
        scale[:, :, block] = np.where(np.isfinite(new) & (new >= np.finfo(np.float32).tiny), new, old)
        gradient -= (scale[:, :, block] - old.astype(np.float64))[:, :, None] * moved
    error = weight - spread(problem, scale) * solution.levels.astype(np.float64)
    return Solution(solution.levels, scale), np.einsum("grk,grk->gr", gradient, error)


def multiply_columns(problem: LayerProblem, values: NDArray[np.float64], columns: slice) -> NDArray[np.float64]:
    """``values @ metric[columns]``: the product of weights that are zero outside some columns."""
    product = matmul(values, problem.gram[:, columns])
    if problem.corrects_mean:
        product -= matmul(values, problem.mean[:, columns, None]) * problem.mean[:, None, :]
    return np.asarray(product)


@dataclass(frozen=True)
class Nearest(Solver):
    """The nearest level of each weight; the scale lets the largest weight of a row (and block) fit."""

    def solve(self, problem: LayerProblem, start: Solution | None = None, seed: int = 0) -> Solution:
        """See `Solver.solve`."""
        return nearest_solution(problem) if start is None else keep_best(problem, nearest_solution(problem), start)

    def importance(self, problem: LayerProblem) -> NDArray[np.float64]:
        """See `Solver.importance`: the weights alone count."""
        return np.ones(problem.gram.shape[:2])
