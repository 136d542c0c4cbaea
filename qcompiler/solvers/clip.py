"""The scale that is best for rounding: clip few large weights so that the many small ones lie closer.

For each of some scales between the one that fits the largest weight and a fraction of it the weights are rounded to the
nearest level. With the levels ``L`` of a row fixed its loss is a parabola in the scale with the minimum ``<W, L> / <L,
L>`` (products in the metric of the loss), so every candidate is judged at its own best scale. From the best candidate,
rounding and refitting alternate while the loss falls.

With one scale per block, each block is first searched on its own (its part of the metric); the refits use the whole
metric.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qcompiler.solvers.base import (
    Best,
    Solver,
    keep_best,
    losses_of,
    nearest_solution,
    part_of,
    positive,
    refit_scale,
    rounded,
    rows_of,
    stack_rows,
)
from qcompiler.solvers.problem import LayerProblem, Solution, multiply_metric, row_slices


@dataclass(frozen=True)
class OptimalClip(Solver):
    """Nearest levels under the scale of least loss, for each row (and block).

    Attributes:
        candidates: scales tried, in a geometric row.
        lowest: the smallest of them, as a fraction of the one that fits the largest weight.
        rounds: most alternations of rounding and refitting.
    """

    candidates: int = 24
    lowest: float = 0.2
    rounds: int = 4

    def solve(self, problem: LayerProblem, start: Solution | None = None, seed: int = 0) -> Solution:
        """See `Solver.solve`."""
        nearest = nearest_solution(problem)
        parts = [self._rows(rows_of(problem, rows), part_of(nearest, rows)) for rows in row_slices(problem)]
        return keep_best(problem, nearest, stack_rows(parts), start)

    def _rows(self, problem: LayerProblem, nearest: Solution) -> Solution:
        groups, rows, products = problem.weight.shape
        best = self._scan(_blocks_apart(problem), nearest.scale.transpose(0, 2, 1).reshape(-1, rows, 1))
        levels = best.levels.reshape(groups, problem.blocks, rows, -1).transpose(0, 2, 1, 3).reshape(groups, rows, -1)
        scale = best.scale.reshape(groups, problem.blocks, rows).transpose(0, 2, 1)
        return alternate(
            problem, Solution(np.ascontiguousarray(levels[:, :, :products]), np.ascontiguousarray(scale)), self.rounds
        )

    def _scan(self, problem: LayerProblem, largest: NDArray[np.float32]) -> Solution:
        """The best candidate of each row for one scale per row; ``largest`` [G, R, 1] fits the largest weight."""
        product = multiply_metric(problem, np.asarray(problem.weight, np.float64))
        candidates = (
            rounded(problem, positive(largest * ratio)) for ratio in np.geomspace(1, self.lowest, self.candidates)
        )
        best = Best(*refit_scale(problem, next(candidates), product))
        for candidate in candidates:
            best.show(*refit_scale(problem, candidate, product))
        return best.solution


def alternate(problem: LayerProblem, solution: Solution, rounds: int) -> Solution:
    """Alternate refitting scales and rounding, at most ``rounds`` times; keep the best of each row."""
    product = multiply_metric(problem, np.asarray(problem.weight, np.float64))
    best = Best(solution, losses_of(problem, solution))
    for _ in range(rounds):
        solution, losses = refit_scale(problem, solution, product)
        best.show(solution, losses)
        again = rounded(problem, solution.scale)
        if np.array_equal(again.levels, solution.levels):
            break
        solution = again
    return best.solution


def importance_clip(
    problem: LayerProblem, importance: NDArray[np.float64], candidates: int = 24, lowest: float = 0.2
) -> NDArray[np.float32]:
    """Scales [G, R, B] of least nearest-level error, where column k counts ``importance[g, k]`` times.

    Much cheaper than `OptimalClip`: a metric without its off-diagonal part.
    """
    from qcompiler.solvers.kernels import halves, scan_scales

    scale = nearest_solution(problem).scale.astype(np.float64)
    width = problem.grid.block or problem.weight.shape[2]
    ratios, cells = np.geomspace(1, lowest, candidates), halves(problem.grid.levels[None])[0].astype(np.float64)
    for rows in row_slices(problem):
        part = np.ascontiguousarray(scale[:, rows])
        weight = np.ascontiguousarray(problem.weight[:, rows], np.float64)
        scan_scales(weight, importance, part, ratios, width, cells)
        scale[:, rows] = part
    return positive(scale)


def _blocks_apart(problem: LayerProblem) -> LayerProblem:
    """Each block of a row as a group: [G * B, R, block] with its part of the metric, the last one zero-padded."""
    width = problem.grid.block
    if width is None:
        return problem
    groups, rows, products = problem.weight.shape
    blocks = problem.blocks
    weight = np.zeros((groups, rows, blocks * width), problem.weight.dtype)
    gram, mean = np.zeros((groups, blocks, width, width)), np.zeros((groups, blocks * width))
    weight[:, :, :products], mean[:, :products] = problem.weight, problem.mean
    for block in range(blocks):
        columns = slice(block * width, min((block + 1) * width, products))
        size = columns.stop - columns.start
        gram[:, block, :size, :size] = problem.gram[:, columns, columns]
    return replace(
        problem,
        weight=weight.reshape(groups, rows, blocks, width).transpose(0, 2, 1, 3).reshape(groups * blocks, rows, width),
        gram=gram.reshape(groups * blocks, width, width),
        mean=mean.reshape(groups * blocks, width),
        grid=replace(problem.grid, block=None),
    )
