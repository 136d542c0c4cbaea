"""Search for the scale, and for one more parameter, under which a weight lies best on a grid.

Clipping competes with the shape of a grid: under the scale that fits the largest weight a grid dense near zero looks
better than it is. So both are searched together: for every shape each row (and block) gets its own best scale. The loss
is piecewise, hence a coarse bracket first, then a golden section inside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.grids.grid import Grid

__all__ = ["fit_scale", "grid_loss", "importance_of", "in_blocks", "minimize"]

RATIOS = np.append(np.geomspace(0.15, 1.0, 20), 1.1)
"""Scales that are tried, as multiples of the one that fits the largest weight."""
_GOLDEN = (np.sqrt(5.0) - 1) / 2
_CHUNK = 1 << 17
"""Weights that are searched together."""

Array = NDArray[Any]
Floats = NDArray[np.float64]


def minimize(loss: Callable[[Floats], Floats], candidates: Floats, steps: int) -> tuple[Floats, Floats]:
    """Minimize many functions of one number at once: the best candidate, then golden section around it.

    Args:
        loss: values [N] of the N functions, each at its own place of a vector [N].
        candidates: places [C] to try first, ascending.
        steps: evaluations of the golden section.

    Returns:
        The best places seen, and the values there, both [N].
    """
    values = np.stack([loss(np.asarray(place)) for place in candidates])
    index = values.argmin(axis=0)
    place, least = candidates[index], values.min(axis=0)
    low, high = candidates[np.maximum(index - 1, 0)], candidates[np.minimum(index + 1, len(candidates) - 1)]
    inner = [high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)]
    at_inner = [loss(inner[0]), loss(inner[1])]
    for _ in range(steps):
        for spot, value in zip(inner, at_inner, strict=True):
            place, least = np.where(value < least, spot, place), np.minimum(value, least)
        left = at_inner[0] < at_inner[1]
        low, high = np.where(left, low, inner[0]), np.where(left, inner[1], high)
        new = np.where(left, high - _GOLDEN * (high - low), low + _GOLDEN * (high - low))
        at_new = loss(new)
        inner = [np.where(left, new, inner[1]), np.where(left, inner[0], new)]
        at_inner = [np.where(left, at_new, at_inner[1]), np.where(left, at_inner[0], at_new)]
    return place, least


def importance_of(weight: Array, metric: Array | None) -> NDArray[np.float32] | None:
    """Weight of each squared error [G, 1, K], float32: the diagonal of the metric; None without one."""
    if metric is None:
        return None
    diagonal = np.maximum(np.einsum("gkk->gk", metric), 0.0)
    mean = float(diagonal.mean())
    return np.asarray(diagonal / mean if mean > 0 else np.ones_like(diagonal), np.float32)[:, None, :]


def in_blocks(values: Array, block: int | None) -> NDArray[np.float32]:
    """[G, R, K] as [G * R * B, block]: what shares a scale in a row, the last block of a row filled up with zeros."""
    groups, rows, products = values.shape
    width = block or products
    blocks = -(-products // width)
    padded = np.zeros((groups, rows, blocks * width), np.float32)
    padded[:, :, :products] = values
    return padded.reshape(-1, width)


def fit_scale(grid: Grid, weight: Array, metric: Array | None = None) -> NDArray[np.float32]:
    """The scale of least squared error for every row and block, errors weighted by the diagonal of the metric.

    Args:
        grid: the levels.
        weight: float [G, R, K].
        metric: float [G, K, K]; None: all weights count the same.

    Returns:
        float32 [G, R, B], positive.
    """
    scale, _ = _search(grid, weight, importance_of(weight, metric), steps=8)
    return scale.reshape(*weight.shape[:2], -1).astype(np.float32)


def grid_loss(grid: Grid, weight: Array, metric: Array | None = None) -> float:
    """Squared error of a weight [G, R, K] on a grid, best scales, weighted by the metric's diagonal (mean 1)."""
    _, loss = _search(grid, weight, importance_of(weight, metric), steps=4)
    return float(loss.sum())


def _search(grid: Grid, weight: Array, importance: NDArray[np.float32] | None, steps: int) -> tuple[Floats, Floats]:
    """Best scale and loss of every row of `in_blocks`."""
    rows = in_blocks(weight, grid.block)
    counts = None if importance is None else in_blocks(np.broadcast_to(importance, weight.shape), grid.block)
    size = max(_CHUNK // max(rows.shape[1], 1), 1)
    parts = [slice(start, start + size) for start in range(0, len(rows), size)]
    found = [_search_rows(grid, rows[part], None if counts is None else counts[part], steps) for part in parts]
    return np.concatenate([scale for scale, _ in found]), np.concatenate([loss for _, loss in found])


def _search_rows(
    grid: Grid, rows: NDArray[np.float32], counts: NDArray[np.float32] | None, steps: int
) -> tuple[Floats, Floats]:
    largest = np.abs(rows).max(axis=1)
    full = np.where(largest > 0, largest / grid.largest, 1.0).astype(np.float32)

    def loss(ratio: Floats) -> Floats:
        scale = (full * ratio).astype(np.float32)[:, None]
        error = rows - scale * grid.nearest(rows / scale)
        return np.asarray(np.einsum("nk,nk->n", error, error if counts is None else error * counts), np.float64)

    ratio, least = minimize(loss, RATIOS, steps)
    return full * ratio, least
