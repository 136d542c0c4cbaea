"""Where the channels of a tensor are, and where they go when it is reshaped, transposed or broadcast.

A *layout* is a tuple of axes; the channel index of an element is its row-major index over those axes, in that order.
The columns of a projection [B, L, 384] have the layout (2,); after Reshape to [B, L, 12, 32] they have (2, 3), after a
Transpose to [B, 12, L, 32] they have (1, 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.shapes.dims import Dim

__all__ = ["Index", "Layout", "Moved", "aligned", "moved_by_reshape", "moved_by_transpose", "sizes_of"]

Layout = tuple[int, ...]
Index = NDArray[np.int64]


@dataclass(frozen=True)
class Moved:
    """Where channels went.

    Attributes:
        layout: their axes there.
        source: for every channel there, the channel it was here; None where the order is the same.
    """

    layout: Layout
    source: Index | None = None


def sizes_of(shape: Sequence[Dim] | None, layout: Layout) -> tuple[int, ...] | None:
    """Sizes of the axes of a layout; None where one is not a number."""
    if shape is None or any(axis >= len(shape) for axis in layout):
        return None
    sizes = [shape[axis] for axis in layout]
    return tuple(int(size) for size in sizes) if all(isinstance(size, int) for size in sizes) else None


def aligned(layout: Layout, rank: int, other_rank: int) -> Layout | None:
    """The axes of a layout in a tensor of another rank that is broadcast with it; None where it lacks one of them."""
    moved = tuple(axis + other_rank - rank for axis in layout)
    return moved if all(axis >= 0 for axis in moved) else None


def moved_by_transpose(layout: Layout, permutation: Sequence[int], *, backward: bool) -> Layout:
    """The layout behind a Transpose (or before it)."""
    if backward:
        return tuple(int(permutation[axis]) for axis in layout)
    places = {int(source): target for target, source in enumerate(permutation)}
    return tuple(places[axis] for axis in layout)


def moved_by_reshape(layout: Layout, before: Sequence[Dim], after: Sequence[Dim]) -> Moved | None:
    """The layout behind a Reshape, Flatten, Squeeze or Unsqueeze; None where it cannot be told."""
    blocks = _blocks(before, after)
    touched = [block for block in blocks if set(layout) & set(block[0])]
    if all(len(block[0]) == len(block[1]) == 1 for block in touched):
        places = {block[0][0]: block[1][0] for block in touched}
        return Moved(tuple(places[axis] for axis in layout))
    return _within(layout, before, after, *touched[0]) if len(touched) == 1 else None


def _blocks(before: Sequence[Dim], after: Sequence[Dim]) -> list[tuple[list[int], list[int]]]:
    """Pairs of axes that hold the same elements: equal sizes from both ends, and what is left between them."""
    left = 0
    while left < min(len(before), len(after)) and before[left] == after[left]:
        left += 1
    right = 0
    while right < min(len(before), len(after)) - left and before[-1 - right] == after[-1 - right]:
        right += 1
    middle = (list(range(left, len(before) - right)), list(range(left, len(after) - right)))
    outer = [([axis], [axis]) for axis in range(left)]
    outer += [([len(before) - 1 - k], [len(after) - 1 - k]) for k in range(right)]
    return [*outer, middle]


def _within(
    layout: Layout, before: Sequence[Dim], after: Sequence[Dim], old: list[int], new: list[int]
) -> Moved | None:
    """As `moved_by_reshape`, for a layout within one block, by reshaping channel numbers."""
    old_sizes, new_sizes = sizes_of(before, tuple(old)), sizes_of(after, tuple(new))
    if (
        old_sizes is None
        or new_sizes is None
        or int(np.prod(old_sizes)) != int(np.prod(new_sizes))
        or not set(layout) <= set(old)
    ):
        return None
    inside = [old.index(axis) for axis in layout]
    numbers = np.arange(int(np.prod([old_sizes[i] for i in inside]))).reshape([old_sizes[i] for i in inside])
    spread = np.transpose(numbers, np.argsort(inside))
    spread = np.broadcast_to(
        np.expand_dims(spread, [i for i in range(len(old)) if i not in inside]), old_sizes
    ).reshape(new_sizes)
    varying = [axis for axis in range(len(new)) if not _constant_along(spread, axis)]
    source = spread[tuple(slice(None) if axis in varying else 0 for axis in range(len(new)))].reshape(-1)
    layout_there = tuple(new[axis] for axis in varying)
    return Moved(layout_there, None if np.array_equal(source, np.arange(numbers.size)) else source.astype(np.int64))


def _constant_along(values: NDArray[Any], axis: int) -> bool:
    return bool(np.array_equal(values, np.broadcast_to(np.take(values, [0], axis), values.shape)))
