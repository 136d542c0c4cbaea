"""GPTQ: round one column after the other and let the columns still free make good the errors so far.

With the Cholesky factor of the metric, ``H = L Lᵀ`` (lower), the loss of a row's error ``e`` is ``|e L|²``, and its
term of column ``j``, ``(L_jj e_j + Σ_{i>j} L_ij e_i)²``, holds no error of a column before ``j``. So columns are
rounded from the last to the first, each to the level nearest to ``w_j + Σ_{i>j} e_i L_ij / L_jj``, which makes its term
as small as the grid allows. This gives the codes of OBQ in the same order (Frantar et al., "GPTQ", 2022; the form
without an inverse is that of Chee et al., "QuIP", 2023), needs one factorization and no inverse, and leaves the weights
as they are: what a block of columns owes to the columns before is one matrix product.

The best level of a column is not always the best for those that follow. With a beam, as in the decoding of lattices,
the ``beam`` partial roundings of least loss are kept instead of one.

The Gram matrix of few feeds describes these feeds only. Damping makes less of what inputs seem to have in common, and
how much of it is best differs by far: on EfficientNet-Lite0 the first layers want a tenth of the mean of the diagonal,
the last ones, whose inputs differ from picture to picture, all of it and more. So `Gptq.tuned` asks vectors held out.

With ``act_order`` the columns with the largest diagonal elements are rounded first, while there is most freedom left.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qcompiler.linear_algebra import cholesky, matmul
from qcompiler.solvers.base import (
    Best,
    Solver,
    keep_best,
    limits,
    losses_of,
    nearest_solution,
    part_of,
    positive,
    refit_scale,
    rows_of,
    spread,
    stack_rows,
    tables_of,
)
from qcompiler.solvers.clip import importance_clip
from qcompiler.solvers.problem import LayerProblem, Solution, loss, multiply_metric, row_slices

Floats = NDArray[np.float64]

SMALLEST_DAMPING = 1e-10
"""Damping, relative to the mean diagonal, that is added when none was asked for and the factorization fails."""

DAMPINGS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Dampings that `Gptq.tuned` chooses among."""

SAMPLED_ROWS = 64
"""Rows (output channels) on which the damping is chosen."""

SHORT = 32
"""Largest K of a short row, as in a depthwise 5 x 5 kernel or a first convolution."""


@dataclass(frozen=True)
class Factor:
    """The Cholesky factors of the metrics of all groups.

    Attributes:
        order: int [G, K], the columns from the last to be rounded to the first.
        lower: float64 [G, K, K], in that order, lower, each column divided by its element on the diagonal.
        diagonal: float64 [G, K], what they were divided by.
    """

    order: NDArray[np.intp]
    lower: Floats
    diagonal: Floats


@dataclass(frozen=True)
class Gptq(Solver):
    """GPTQ: columns rounded in turn with error feedback, under given scales or those of `feedback_importance`.

    Attributes:
        block: columns whose errors are passed on together; changes nothing but the speed.
        act_order: the columns with the largest inputs first.
        damping: added to the diagonal of the metric, relative to its mean; ten times as much again until the
            factorization succeeds.
        ratios: the scales tried besides those of the start, relative to them; each row takes the one that came out
            best.
        rounds: how often the scales are refitted to the levels found and all columns rounded anew.
        beam: number of partial roundings kept per row, the best ones; the nearest level is taken for one, the three
            nearest are tried for more. The time grows with it, and without the help of matrix products.
        short_beam: the least beam for rows of at most `SHORT` products, where it costs little.
    """

    block: int = 128
    act_order: bool = True
    damping: float = 0.1
    ratios: tuple[float, ...] = (0.8, 0.9, 1.1, 1.2)
    rounds: int = 2
    beam: int = 1
    short_beam: int = 16

    def solve(self, problem: LayerProblem, start: Solution | None = None, seed: int = 0) -> Solution:
        """See `Solver.solve`."""
        factor = factorize(problem, self.damping, self.act_order)
        scale = importance_clip(problem, feedback_importance(factor)) if start is None else start.scale
        parts = []
        for rows in row_slices(problem):
            part = rows_of(problem, rows)
            parts.append(
                self._rows(
                    part,
                    factor,
                    scale[:, rows],
                    keep_best(part, nearest_solution(part), start and part_of(start, rows)),
                )
            )
        return stack_rows(parts)

    def tuned(self, fit: LayerProblem, held: LayerProblem) -> Gptq:
        """The damping under which some of the rows, rounded once, lose least on ``held``."""
        some = slice(None, None, -(-fit.weight.shape[1] // SAMPLED_ROWS))
        few, judge = rows_of(fit, some), rows_of(held, some)
        quick = (replace(self.hasty(), damping=damping) for damping in DAMPINGS)
        losses = [loss(judge, solver.solve(few).weight(fit.grid.block)) for solver in quick]
        return replace(self, damping=DAMPINGS[int(np.argmin(losses))])

    def importance(self, problem: LayerProblem) -> Floats:
        """See `Solver.importance`: under error feedback the square of the factor's diagonal."""
        return feedback_importance(factorize(problem, self.damping, self.act_order))

    def hasty(self) -> Gptq:
        """Columns rounded once."""
        return replace(self, ratios=(), rounds=0, beam=1, short_beam=1)

    def _rows(self, problem: LayerProblem, factor: Factor, scale: NDArray[np.float32], known: Solution) -> Solution:
        beam = max(self.beam, self.short_beam) if problem.weight.shape[2] <= SHORT else self.beam
        found = Best(*round_with_feedback(problem, factor, scale, self.block, beam))
        for ratio in self.ratios:
            found.show(*round_with_feedback(problem, factor, positive(scale * ratio), self.block, beam))
        product = multiply_metric(problem, np.asarray(problem.weight, np.float64))
        best = Best(known, losses_of(problem, known))
        solution, losses = refit_scale(problem, found.solution, product)
        best.show(solution, losses)
        for _ in range(self.rounds):
            again, _ = round_with_feedback(problem, factor, solution.scale, self.block, beam)
            solution, losses = refit_scale(problem, again, product)
            best.show(solution, losses)
        return best.solution


def feedback_importance(factor: Factor) -> Floats:
    """How much a column's rounding error counts under error feedback: the square of the factor's diagonal, [G, K]."""
    importance = np.empty_like(factor.diagonal)
    np.put_along_axis(importance, factor.order, factor.diagonal**2, axis=1)
    return importance


def round_with_feedback(
    problem: LayerProblem, factor: Factor, scale: NDArray[np.float32], block: int, beam: int = 1
) -> tuple[Solution, Floats]:
    """Levels under the given scale, and damped loss per row [G, R]; see `Gptq` for ``block`` and ``beam``."""
    from qcompiler.solvers.kernels import halves, round_beam, round_columns

    order = factor.order[:, None, :]
    weight = np.take_along_axis(np.asarray(problem.weight, np.float64), order, axis=2)
    steps = np.take_along_axis(np.broadcast_to(spread(problem, scale), weight.shape).astype(np.float64), order, axis=2)
    tables, kinds = tables_of(problem)
    kinds, ends = np.take_along_axis(kinds, order, axis=2), limits(tables)
    chosen, losses = np.empty(weight.shape, np.int16), np.zeros(weight.shape[:2])
    if beam > 1:
        round_beam(weight, steps, factor.lower, factor.diagonal, beam, tables, ends, kinds, chosen, losses)
    else:
        error, cells = np.empty_like(weight), halves(tables)
        for last in range(weight.shape[2], 0, -block):
            first = max(0, last - block)
            targets = weight[:, :, first:last] + matmul(error[:, :, last:], factor.lower[:, last:, first:last])
            round_columns(
                targets,
                weight,
                steps,
                factor.lower,
                factor.diagonal,
                first,
                tables,
                ends,
                cells,
                kinds,
                chosen,
                error,
                losses,
            )
    levels = np.empty_like(chosen)
    np.put_along_axis(levels, order, chosen, axis=2)
    return Solution(levels, scale), losses


def factorize(problem: LayerProblem, damping: float, act_order: bool) -> Factor:
    """The factors of the damped metrics, with one array of the metrics' size.

    A metric that is not positive definite, by columns that are always zero or depend on each other or by rounding
    errors, is damped ten times more until it is.

    Raises:
        ValueError: the Gram matrix or a weight is not finite.
    """
    groups, products, _ = problem.gram.shape
    diagonals = np.diagonal(problem.gram, axis1=1, axis2=2) - (problem.mean**2 if problem.corrects_mean else 0)
    if not np.isfinite(diagonals).all() or not np.isfinite(problem.weight).all():
        raise ValueError("the weights of the layer or the Gram matrix of its inputs are not finite")
    order = (
        np.argsort(diagonals, axis=1, kind="stable")
        if act_order
        else np.tile(np.arange(products - 1, -1, -1), (groups, 1))
    )
    lower = _factorize_all(problem, order, damping * _units(diagonals)) if products <= SHORT else None
    if lower is None:
        lower = np.empty((groups, products, products))
        for group, unit in enumerate(_units(diagonals)):
            _factorize_group(problem, group, order[group], (damping * unit, SMALLEST_DAMPING * unit), lower[group])
    diagonal = np.diagonal(lower, axis1=1, axis2=2).copy()
    lower /= diagonal[:, None, :]
    return Factor(order, lower, diagonal)


def _units(diagonals: Floats) -> Floats:
    """What dampings are relative to, float64 [G]: the mean of the diagonal, 1 where that is 0."""
    means = np.maximum(diagonals, 0).mean(axis=1)
    return np.where(means > 0, means, 1.0)


def _factorize_all(problem: LayerProblem, order: NDArray[np.intp], added: Floats) -> Floats | None:
    """The lower factors of many small damped metrics at once; None where one of them fails."""
    metrics = np.take_along_axis(np.take_along_axis(problem.gram, order[:, :, None], axis=1), order[:, None, :], axis=2)
    if problem.corrects_mean:
        mean = np.take_along_axis(problem.mean, order, axis=1)
        metrics -= mean[:, :, None] * mean[:, None, :]
    metrics += added[:, None, None] * np.eye(order.shape[1])
    try:
        return cholesky(metrics)
    except np.linalg.LinAlgError:
        return None


def _factorize_group(
    problem: LayerProblem, group: int, order: NDArray[np.intp], damping: tuple[float, float], out: Floats
) -> None:
    """Lower Cholesky factor of one metric in the given order, with the first damping that works."""
    added, least = damping
    while True:
        _copy_metric(problem, group, order, out)
        out.reshape(-1)[:: len(order) + 1] += added
        try:
            out[:] = cholesky(out)
        except np.linalg.LinAlgError:
            added = max(10 * added, least)
        else:
            return


def _copy_metric(problem: LayerProblem, group: int, order: NDArray[np.intp], out: Floats) -> None:
    """Write the metric of a group, its rows and columns in the given order."""
    gram, mean = problem.gram[group], problem.mean[group][order]
    for first in range(0, len(order), 256):
        rows = slice(first, first + 256)
        out[rows] = gram[order[rows]][:, order]
        if problem.corrects_mean:
            out[rows] -= mean[rows, None] * mean
