"""One-dimensional k-means, exact and without any draw.

Sorted points fall into clusters of neighbours, so the best clustering is a best choice of k - 1 cuts. Dynamic
programming finds it: with ``C(i, j)`` the weighted squared error of points i … j - 1 around their mean, ``D_k(j) =
min_i D_{k-1}(i) + C(i, j)``.

More than `CELLS` different values are first put into as many cells of equal width whose moments stay exact; the cuts
between cells are then moved to where Lloyd's rule wants them among all the values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CELLS", "cluster_centres", "nearest_centre"]

CELLS = 1024
ROUNDS = 30
NEGLIGIBLE = 1e-12
"""Share of the total weight below which a value is ignored."""

Array = NDArray[Any]
Floats = NDArray[np.float64]


def cluster_centres(values: Array, count: int, counts: Array | None = None, pinned: float | None = None) -> Floats:
    """Centres of the best ``count`` clusters, ascending; fewer where there are fewer different values.

    With a ``pinned`` value the centre nearest to it moves there, where there is none to spare, and the others to where
    Lloyd's rule then wants them.

    Args:
        values: finite, any shape.
        count: number of clusters, at least 1.
        counts: how much each value counts, of its shape, not negative; None: once.
        pinned: a centre there must be.
    """
    points, inverse = np.unique(np.asarray(values, np.float64).reshape(-1), return_inverse=True)
    weights = np.bincount(
        inverse, None if counts is None else np.asarray(counts, np.float64).reshape(-1), len(points)
    ).astype(np.float64)
    counted = weights > NEGLIGIBLE * weights.sum()  # below that running sums lose it
    points, weights = points[counted], weights[counted]
    if not len(points):
        return np.unique(np.asarray(values, np.float64))[:1]
    shift = float(points.mean())  # moments around the middle do not cancel
    points -= shift
    centres = _best_centres(points, weights, count)
    if pinned is None:
        return centres + shift
    if len(centres) < count:
        return np.union1d(centres + shift, pinned)
    centres[np.abs(centres + shift - pinned).argmin()] = pinned - shift
    return _lloyd(points, weights, centres, pinned - shift) + shift


def _best_centres(points: Floats, weights: Floats, count: int) -> Floats:
    if len(points) <= count:
        return points.copy()
    moments = [weights * points**order for order in range(3)]
    if len(points) <= CELLS:
        return _best_cuts(moments, count)
    cell = ((points - points[0]) * (CELLS / (points[-1] - points[0]))).astype(np.int64).clip(0, CELLS - 1)
    cells = [np.bincount(cell, moment, CELLS).astype(np.float64) for moment in moments]
    used = cells[0] > 0
    return _lloyd(points, weights, _best_cuts([moment[used] for moment in cells], count), None)


def nearest_centre(values: Array, centres: Floats) -> NDArray[np.int64]:
    """Index of the nearest centre of each value; a value halfway belongs to the lower one."""
    return np.searchsorted((centres[1:] + centres[:-1]) / 2, values, side="left")


def _best_cuts(moments: list[Floats], count: int) -> Floats:
    """Means of the best ``count`` runs of neighbours, given the moments of orders 0, 1 and 2 of each point or cell."""
    total, linear, square = (np.concatenate([[0.0], np.cumsum(moment)]) for moment in moments)
    size = len(total)
    mass = total[None, :] - total[:, None]
    empty = np.tri(size, dtype=np.bool_)  # a run i ... j - 1 needs i < j
    spread = square[None, :] - square[:, None] - (linear[None, :] - linear[:, None]) ** 2 / np.where(empty, 1.0, mass)
    cost = np.where(empty, np.inf, np.maximum(spread, 0.0))
    best, cuts = cost[0], np.zeros((count, size), np.int64)
    for cluster in range(1, count):
        ways = best[:, None] + cost
        cuts[cluster] = ways.argmin(axis=0)
        best = ways[cuts[cluster], np.arange(size)]
    end, centres = size - 1, []
    for cluster in reversed(range(min(count, size - 1))):
        begin = int(cuts[cluster, end])
        centres.append((linear[end] - linear[begin]) / (total[end] - total[begin]))
        end = begin
    return np.array(centres[::-1])


def _lloyd(points: Floats, weights: Floats, centres: Floats, pinned: float | None) -> Floats:
    """The centres (one may be pinned) once no point, ascending, changes its cluster, or after `ROUNDS` rounds."""
    mass, linear = (np.concatenate([[0.0], np.cumsum(moment)]) for moment in (weights, weights * points))
    for _ in range(ROUNDS):
        cuts = np.concatenate(
            [[0], np.searchsorted(points, (centres[1:] + centres[:-1]) / 2, side="right"), [len(points)]]
        )
        inside = np.diff(mass[cuts])
        moved = np.where(inside > 0, np.diff(linear[cuts]) / np.where(inside > 0, inside, 1.0), centres)
        moved = np.where(centres == pinned, centres, moved)
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres
