"""Coordinate descent: one weight after the other takes the level that is best while all others stay.

The loss is a parabola in one weight, ``H_jj d² - 2 d (E H)_j`` when it moves by ``d``, so the best level is the one
nearest to the parabola's minimum, however far it is. The loss never rises, and ends where no single change lowers it.
Then the scales are refitted, and so on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcompiler.solvers.base import (
    Solver,
    keep_best,
    limits,
    losses_of,
    nearest_solution,
    part_of,
    refit_scale,
    rows_of,
    spread,
    stack_rows,
    tables_of,
)
from qcompiler.solvers.gptq import Gptq
from qcompiler.solvers.problem import LayerProblem, Solution, multiply_metric, row_slices

Floats = NDArray[np.float64]

SMALLEST_GAIN = 1e-9
"""Least relative decrease of a row's loss that counts: less may be rounding error."""


@dataclass(frozen=True)
class CoordinateDescent(Solver):
    """Improves a start, by default that of `Gptq`, until no single change of a level helps.

    Attributes:
        sweeps: most passes over all columns before the scales are refitted.
        rounds: how often, at most, the scales are refitted.
    """

    sweeps: int = 20
    rounds: int = 5

    def solve(self, problem: LayerProblem, start: Solution | None = None, seed: int = 0) -> Solution:
        """See `Solver.solve`."""
        first = Gptq().solve(problem, start) if start is None or problem.tables is not None else start
        metric = problem.metric
        return stack_rows(
            [self._rows(rows_of(problem, rows), metric, part_of(first, rows)) for rows in row_slices(problem)]
        )

    def _rows(self, problem: LayerProblem, metric: Floats, start: Solution) -> Solution:
        best = keep_best(problem, start, nearest_solution(problem))
        for _ in range(self.rounds):
            solution, _ = refit_scale(problem, descend(problem, metric, best, self.sweeps))
            following = keep_best(problem, best, solution)
            if np.array_equal(following.levels, best.levels):
                return following
            best = following
        return best


def descend(problem: LayerProblem, metric: Floats, start: Solution, sweeps: int) -> Solution:
    """The levels after at most ``sweeps`` sweeps over all columns, under the scales of ``start``."""
    from qcompiler.solvers.kernels import descend_rows

    levels = start.levels.copy()
    gradient = multiply_metric(problem, np.asarray(problem.weight, np.float64) - start.weight(problem.grid.block))
    steps = np.broadcast_to(spread(problem, start.scale), levels.shape).astype(np.float64)
    least_gain = SMALLEST_GAIN * losses_of(problem, start)
    tables, kinds = tables_of(problem)
    descend_rows(levels, gradient, steps, metric, tables, limits(tables), kinds, least_gain, sweeps)
    return Solution(levels, start.scale)
