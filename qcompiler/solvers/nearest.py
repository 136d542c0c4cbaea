"""Rounding to the nearest level: what every other solver must beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcompiler.layer_problem import LayerProblem, Solution
from qcompiler.solvers.base import Solver, keep_best, nearest_solution


@dataclass(frozen=True)
class Nearest(Solver):
    """The nearest level of each weight; the scale lets the largest weight of a row (and block) fit."""

    def solve(self, problem: LayerProblem, start: Solution | None = None, seed: int = 0) -> Solution:
        """See `Solver.solve`."""
        return nearest_solution(problem) if start is None else keep_best(problem, nearest_solution(problem), start)

    def importance(self, problem: LayerProblem) -> NDArray[np.float64]:
        """See `Solver.importance`: the weights alone count."""
        return np.ones(problem.gram.shape[:2])
