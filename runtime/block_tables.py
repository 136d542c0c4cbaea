"""Finds what blocks of a matrix have in common: few tables of few values, each block of a column on one of them.

A matrix [K, C] is cut along K into blocks of 32, 64 or 128 rows; what counts is a block of one column. Blocks whose values belong together share a
table. Which ones those are is found by joining sets of values: the largest one begins a table, and the one that adds the least follows, as long as
the table holds them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
BLOCKS = (128, 64, 32)
MOST_TABLES = 16
_SAMPLE = 64
_TOGETHER = 1 << 13
"""Blocks whose values are looked at together."""


class BlockCodes(NamedTuple):
    """A matrix [K, C] in codes: uint8 ``codes`` [K, C], ``kinds`` [ceil(K / block), C] of the tables, ``tables`` [T, L], each row ascending."""

    block: int
    codes: NDArray[np.uint8]
    kinds: NDArray[np.uint8]
    tables: NDArray[np.int8]


def fewest_codes(matrix: NDArray[np.int8], sizes: Sequence[int]) -> BlockCodes | None:
    """An int8 matrix as codes in at most 16 tables, the tables of the first of these sizes that does, the blocks as large as they can be."""
    for most in sizes:
        for block in BLOCKS:
            found = _coded(matrix, block, most) if block < len(matrix) and _might(matrix, block, most) else None
            if found is not None:
                return found
    return None


def _might(matrix: Array, block: int, most: int) -> bool:
    """False where one of some blocks has too many values."""
    some = matrix[:, :: max(matrix.shape[1] // _SAMPLE, 1)]
    return all(len(np.unique(some[:block, column])) <= most for column in range(some.shape[1]))


def _coded(matrix: NDArray[np.int8], block: int, most: int) -> BlockCodes | None:
    rows, columns = matrix.shape
    blocks = np.pad(matrix, ((0, -rows % block), (0, 0)), mode="edge").reshape(-1, block, columns).transpose(0, 2, 1).reshape(-1, block)
    shifted = blocks.view(np.uint8) ^ np.uint8(128)  # ascending as the int8 are
    sets = _sets(shifted)
    different, first = np.unique(sets, axis=0, return_inverse=True)
    members = np.unpackbits(different, axis=1).astype(np.bool_)
    joined = _joined(members, most) if members.sum(axis=1).max() <= most else None
    if joined is None:
        return None
    kind_of, members = joined
    kinds = kind_of[first.reshape(-1)]
    places = (np.cumsum(members, axis=1) - 1).clip(0).astype(np.uint8)
    codes = places[kinds[:, None], shifted].reshape(-1, columns, block).transpose(0, 2, 1).reshape(-1, columns)[:rows]
    values = [np.flatnonzero(row).astype(np.uint8) ^ np.uint8(128) for row in members]
    size = max(map(len, values))
    tables = np.stack([np.append(row, np.repeat(row[-1:], size - len(row))) for row in values]).view(np.int8)
    return BlockCodes(block, np.ascontiguousarray(codes), kinds.astype(np.uint8).reshape(-1, columns), tables)


def _sets(blocks: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Which of 256 values occur in each block [N, block], one bit each: [N, 32]."""
    result = np.empty((len(blocks), 32), np.uint8)
    for start in range(0, len(blocks), _TOGETHER):
        part = blocks[start : start + _TOGETHER]
        present = np.zeros((len(part), 256), np.bool_)
        present[np.arange(len(part))[:, None], part] = True
        result[start : start + len(part)] = np.packbits(present, axis=1)
    return result


def _joined(sets: NDArray[np.bool_], most: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]] | None:
    """The table of each set of values [N, 256], and the values of each table [T, 256]; None where they are more than 16."""
    kinds, tables = np.full(len(sets), -1), list[NDArray[np.bool_]]()
    sizes = sets.sum(axis=1)
    while (kinds < 0).any():
        if len(tables) == MOST_TABLES:
            return None
        left = np.flatnonzero(kinds < 0)
        table = sets[left[sizes[left].argmax()]].copy()
        while left.size:
            growth = (sets[left] & ~table).sum(axis=1)
            kinds[left[growth == 0]] = len(tables)
            left, growth = left[growth > 0], growth[growth > 0]
            if not left.size or table.sum() + growth.min() > most:
                break
            table |= sets[left[growth.argmin()]]
        tables.append(table)
    return kinds, np.stack(tables)
