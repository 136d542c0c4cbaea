"""The loops over columns that NumPy cannot vectorize, one row of a weight after another.

All of them live in one file: Numba's cache on disk does not notice that a function called from another file has
changed. The solvers import it where they call it, so that only who solves a layer pays for loading Numba.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

_F = TypeVar("_F", bound=Callable[..., Any])
Floats = NDArray[np.float64]
Levels = NDArray[np.int16]
Kinds = NDArray[np.uint8]

HALVES = 256
"""Twice the largest magnitude of a level, at most."""

LEVELS = 256
"""Upper bound on the number of levels of a grid."""


def jit(function: _F) -> _F:
    """Compile at the first call and keep the machine code on disk, where Numba finds a folder that it may write to."""
    try:
        return numba.njit(nogil=True, cache=True)(function)  # type: ignore[no-any-return]
    except RuntimeError:  # "no locator available": neither beside this file nor in the user's cache
        return numba.njit(nogil=True)(function)  # type: ignore[no-any-return]


@jit
def nearest_index(limits: Floats, kind: int, value: float) -> int:
    """Number of limits [T, L - 1] of a table that are not above ``value``: the index of its nearest level."""
    low, high = 0, limits.shape[1]
    while low < high:
        middle = (low + high) >> 1
        if limits[kind, middle] <= value:
            low = middle + 1
        else:
            high = middle
    return low


@jit
def nearest_level(cells: Levels, tables: Levels, limits: Floats, kind: int, value: float) -> Any:
    """The nearest level of ``value`` in a table, by ``cells`` of half-integer width (`halves`)."""
    doubled = 2 * value
    if not doubled > -HALVES:
        return tables[kind, 0]
    if doubled >= HALVES:
        return tables[kind, -1]
    cell = int(np.floor(doubled))
    if cell == doubled:
        return tables[kind, nearest_index(limits, kind, value)]
    return cells[kind, cell + HALVES]


def halves(tables: Levels) -> Levels:
    """int16 [T, 2 * HALVES]: nearest level between ``k/2`` and ``(k+1)/2``, k from ``-HALVES``, per table [T, L]."""
    middles = np.arange(-HALVES, HALVES) / 2 + 0.25
    return np.stack(
        [levels[np.searchsorted((levels[:-1].astype(np.float64) + levels[1:]) / 2, middles)] for levels in tables]
    )


@jit
def round_columns(
    targets: Floats,
    weight: Floats,
    scale: Floats,
    factor: Floats,
    diagonal: Floats,
    first: int,
    tables: Levels,
    limits: Floats,
    cells: Levels,
    kinds: Kinds,
    levels: Levels,
    error: Floats,
    losses: Floats,
) -> None:
    """Round the C columns from ``first`` on, the last one first, feeding back the errors of those already rounded.

    Args:
        targets: [G, R, C], what these columns should be given the errors of all columns after them; changed.
        weight: [G, R, K], the exact weights.
        scale: [G, R, K], positive.
        factor: [G, K, K], what a unit of error in a column (first index) adds to the target of an earlier one (second
            index).
        diagonal: [G, K], weight in the loss of the squared distance of a column from its target.
        first: the first of the C columns.
        tables: int16 [T, L], the levels that there are.
        limits: [T, L - 1], where the nearest level changes.
        cells: `halves` of the tables.
        kinds: [G, R, K], the table of each weight.
        levels: int16 [G, R, K], the levels chosen; written.
        error: [G, R, K], weight minus chosen value; written.
        losses: [G, R], the loss of these columns is added.
    """
    groups, rows, columns = targets.shape
    for group in range(groups):
        for row in range(rows):
            target = targets[group, row]
            for inner in range(columns - 1, -1, -1):
                column = first + inner
                step = scale[group, row, column]
                level = nearest_level(cells, tables, limits, kinds[group, row, column], target[inner] / step)
                difference = weight[group, row, column] - step * level
                levels[group, row, column] = level
                error[group, row, column] = difference
                losses[group, row] += (diagonal[group, column] * (target[inner] - step * level)) ** 2
                for earlier in range(inner):
                    target[earlier] += difference * factor[group, column, first + earlier]


@jit
def descend_rows(
    levels: Levels,
    gradient: Floats,
    scale: Floats,
    metric: Floats,
    tables: Levels,
    limits: Floats,
    kinds: Kinds,
    least_gain: Floats,
    sweeps: int,
) -> int:
    """Give one weight after the other the level that is best while all others stay, over and over.

    Args:
        levels: int16 [G, R, K]; changed.
        gradient: [G, R, K], ``(W - Ŵ) metric``; kept up to date.
        scale: [G, R, K], positive.
        metric: [G, K, K], symmetric.
        tables: int16 [T, L], the levels that there are.
        limits: [T, L - 1], where the nearest level changes.
        kinds: [G, R, K], the table of each weight.
        least_gain: [G, R], a change must lower the loss by more: above rounding errors.
        sweeps: most passes over all columns; a row without a change is done.

    Returns:
        The number of changes.
    """
    groups, rows, columns = levels.shape
    changes = 0
    for group in range(groups):
        for row in range(rows):
            slope = gradient[group, row]
            for _ in range(sweeps):
                before = changes
                for column in range(columns):
                    curvature = metric[group, column, column]
                    if curvature <= 0:
                        continue
                    step = scale[group, row, column]
                    old = levels[group, row, column]
                    kind = kinds[group, row, column]
                    level = tables[kind, nearest_index(limits, kind, old + slope[column] / (curvature * step))]
                    move = step * (level - old)
                    if move * (2 * slope[column] - move * curvature) <= least_gain[group, row]:
                        continue
                    levels[group, row, column] = level
                    changes += 1
                    for other in range(columns):
                        slope[other] -= move * metric[group, column, other]
                if changes == before:
                    break
    return changes


@jit
def scan_scales(weight: Floats, importance: Floats, scale: Floats, ratios: Floats, width: int, table: Floats) -> None:
    """Scale of each row and block of least error by nearest levels, errors weighted by column.

    Args:
        weight: [G, R, K].
        importance: [G, K], how much the squared error of a column counts.
        scale: [G, R, B], a first scale; replaced by the best.
        ratios: [N], the scales that are tried, relative to the first.
        width: columns of a block.
        table: one row of `halves`; a weight just between two levels may go to either.
    """
    groups, rows, columns = weight.shape
    for group in range(groups):
        for row in range(rows):
            for block in range(scale.shape[2]):
                first = scale[group, row, block]
                most = 0.0
                for ratio in ratios:
                    doubling = 2 / (first * ratio)
                    along, square = 0.0, 0.0
                    for column in range(block * width, min(block * width + width, columns)):
                        value = weight[group, row, column]
                        cell = min(max(value * doubling + HALVES, 0.0), 2.0 * HALVES - 1)
                        level = table[np.uint64(cell)]
                        weighted = importance[group, column] * level
                        along += weighted * value
                        square += weighted * level
                    if along > 0 and along * along > most * square:
                        most = along * along / square
                        scale[group, row, block] = along / square


@jit
def choose_tables(
    weight: Floats, importance: Floats, scales: Floats, width: int, cells: Floats, scale: Floats, kinds: Kinds
) -> None:
    """Scale of each row, and table of each of its blocks, of least error by nearest levels.

    Args:
        weight: [G, R, K].
        importance: [G, K], how much the squared error of a column counts.
        scales: [G, R, N], those that are tried.
        width: columns of a block.
        cells: [T, 2 * HALVES], `halves` of the tables.
        scale: [G, R], written.
        kinds: [G, R, B], written.
    """
    groups, rows, columns = weight.shape
    blocks = kinds.shape[2]
    trial = np.empty(blocks, np.uint8)
    for group in range(groups):
        for row in range(rows):
            best = np.inf
            for tried in scales[group, row]:
                total = 0.0
                for block in range(blocks):
                    least = np.inf
                    for table in range(len(cells)):
                        loss = 0.0
                        for column in range(block * width, min(block * width + width, columns)):
                            value = weight[group, row, column] / tried
                            cell = min(max(2 * value + HALVES, 0.0), 2.0 * HALVES - 1)
                            error = value - cells[table, np.uint64(cell)]
                            loss += importance[group, column] * error * error
                        if loss < least:
                            least = loss
                            trial[block] = table
                    total += least
                if total * tried * tried < best:
                    best = total * tried * tried
                    scale[group, row] = tried
                    kinds[group, row] = trial


@jit
def insert(least: Floats, ranking: NDArray[np.int64], kept: int, cost: float, key: int) -> int:
    """Insert a cost and its key into the ascending list of the ``kept`` smallest; returns the new length."""
    if kept == len(least):
        if cost >= least[kept - 1]:
            return kept
        kept -= 1
    place = kept
    while place > 0 and least[place - 1] > cost:
        least[place], ranking[place] = least[place - 1], ranking[place - 1]
        place -= 1
    least[place], ranking[place] = cost, key
    return kept + 1


@jit
def round_beam(
    weight: Floats, scale: Floats, factor: Floats, diagonal: Floats, beam: int, tables: Levels, limits: Floats,
    kinds: Kinds, levels: Levels, losses: Floats,
) -> None:  # fmt: skip
    """As `round_columns` from the last column to the first, keeping the ``beam`` best partial roundings per row.

    Args:
        weight: [G, R, K], the exact weights.
        scale: [G, R, K], positive.
        factor: [G, K, K], what a unit of error in a column (first index) adds to the target of an earlier one (second
            index).
        diagonal: [G, K], weight in the loss of the squared distance of a column from its target.
        beam: choices that are followed.
        tables: int16 [T, L], the levels that there are.
        limits: [T, L - 1], where the nearest level changes.
        kinds: [G, R, K], the table of each weight.
        levels: int16 [G, R, K], the levels chosen; written.
        losses: [G, R], written.
    """
    groups, rows, columns = weight.shape
    count = tables.shape[1]
    options = min(3, count)
    targets, following = np.empty((beam, columns)), np.empty((beam, columns))
    costs, least, ranking = np.empty(beam), np.empty(beam), np.empty(beam, np.int64)
    parents, choices = np.empty((columns, beam), np.int64), np.empty((columns, beam), np.int16)
    for group in range(groups):
        for row in range(rows):
            targets[0] = weight[group, row]
            costs[0] = 0.0
            alive = 1
            for column in range(columns - 1, -1, -1):
                step, kind = scale[group, row, column], kinds[group, row, column]
                kept = 0
                for path in range(alive):
                    target = targets[path, column]
                    first = min(max(nearest_index(limits, kind, target / step) - 1, 0), count - options)
                    for index in range(first, first + options):
                        missed = diagonal[group, column] * (target - step * tables[kind, index])
                        kept = insert(least, ranking, kept, costs[path] + missed * missed, path * LEVELS + index)
                for rank in range(kept):
                    path, index = divmod(ranking[rank], LEVELS)
                    parents[column, rank], choices[column, rank] = path, tables[kind, index]
                    difference = weight[group, row, column] - step * tables[kind, index]
                    for earlier in range(column):
                        following[rank, earlier] = targets[path, earlier] + difference * factor[group, column, earlier]
                targets, following = following, targets
                costs, least = least, costs
                alive = kept
            losses[group, row] = costs[0]
            path = 0
            for column in range(columns):
                levels[group, row, column] = choices[column, path]
                path = parents[column, path]
