"""Finds what blocks of a matrix have in common: few tables of few values, each block of a column on one of them.

A matrix [K, C] is cut along K into blocks of 32, 64 or 128 rows; what counts is a block of one column. Blocks whose
values belong together share a table. Which ones those are is found from the sets of values that occur, the largest
first: each joins the table that it adds least to, and begins one where none has room. Sets of few values come last and
find their values in tables that are complete.
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
"""Blocks whose values are compared at once."""


class BlockCodes(NamedTuple):
    """A matrix in uint8 ``codes`` [K, C]; ``kinds`` [ceil(K / block), C]: codebook index; ``tables`` [T, L]."""

    block: int
    codes: NDArray[np.uint8]
    kinds: NDArray[np.uint8]
    tables: NDArray[np.int8]


def fewest_codes(matrix: NDArray[np.int8], sizes: Sequence[int]) -> BlockCodes | None:
    """An int8 matrix in at most 16 codebooks of the smallest size and the largest blocks that hold it."""
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
    blocks = (
        np.pad(matrix, ((0, -rows % block), (0, 0)), mode="edge")
        .reshape(-1, block, columns)
        .transpose(0, 2, 1)
        .reshape(-1, block)
    )
    shifted = blocks.view(np.uint8) ^ np.uint8(128)  # ascending as the int8 are
    different, first = np.unique(_sets(shifted), axis=0, return_inverse=True)
    joined = _joined([int.from_bytes(row.tobytes()) for row in different], most)
    if joined is None:
        return None
    kinds = joined[0][first.reshape(-1)]
    members = np.unpackbits(
        np.frombuffer(b"".join(table.to_bytes(32) for table in joined[1]), np.uint8).reshape(-1, 32), axis=1
    )
    places = (np.cumsum(members, axis=1) - 1).clip(0).astype(np.uint8)
    codes = places[kinds[:, None], shifted].reshape(-1, columns, block).transpose(0, 2, 1).reshape(-1, columns)[:rows]
    values = [np.flatnonzero(row).astype(np.uint8) ^ np.uint8(128) for row in members]
    size = max(map(len, values))
    tables = np.stack([np.append(row, np.repeat(row[-1:], size - len(row))) for row in values]).view(np.int8)
    return BlockCodes(block, np.ascontiguousarray(codes), kinds.reshape(-1, columns), tables)


def _sets(blocks: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Which of 256 values occur in each block [N, block], one bit each: [N, 32]."""
    result = np.empty((len(blocks), 32), np.uint8)
    for start in range(0, len(blocks), _TOGETHER):
        part = blocks[start : start + _TOGETHER]
        present = np.zeros((len(part), 256), np.bool_)
        present[np.arange(len(part))[:, None], part] = True
        result[start : start + len(part)] = np.packbits(present, axis=1)
    return result


def _joined(sets: list[int], most: int) -> tuple[NDArray[np.uint8], list[int]] | None:
    """Codebook of each value set (a 256-bit number), and values of each; None where it takes more than 16."""
    kinds, tables = np.empty(len(sets), np.uint8), list[int]()
    for place in sorted(range(len(sets)), key=lambda place: -sets[place].bit_count()):
        values = sets[place]
        growths = [(values & ~table).bit_count() if (values | table).bit_count() <= most else most for table in tables]
        best = min(growths, default=most)
        if best < most:
            kinds[place] = growths.index(best)
            tables[kinds[place]] |= values
            continue
        if len(tables) == MOST_TABLES or values.bit_count() > most:
            return None
        kinds[place] = len(tables)
        tables.append(values)
    return kinds, tables
