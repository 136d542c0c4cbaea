"""The memory plan: where in the arena each buffer lies, from the instructions between which it is alive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..errors import ProgramError

ALIGNMENT = 64
"""Bytes: buffers begin at cache lines."""

MAX_ARENA = 1 << 40
"""Most bytes of an arena."""


class Life(NamedTuple):
    """First and last instruction that need a buffer; -1 and the number of instructions stand for inputs and outputs."""

    first: int
    last: int


def place(sizes: Sequence[int], lives: Sequence[Life | None]) -> tuple[tuple[int, ...], int]:
    """Arena offsets by liveness (largest buffer first, lowest gap that fits), and the arena's size in bytes.

    Raises:
        ProgramError: the arena would exceed `MAX_ARENA`.
    """
    order = sorted((i for i, life in enumerate(lives) if life), key=lambda i: (-sizes[i], i))
    offsets = [0] * len(sizes)
    placed: list[tuple[int, int, Life]] = []
    total = 0
    for i in order:
        life = lives[i]
        if life is None or sizes[i] == 0:
            continue
        size = -(-sizes[i] // ALIGNMENT) * ALIGNMENT
        offset = 0
        for start, end, other in placed:  # sorted by start
            if other.first > life.last or other.last < life.first:
                continue
            if offset + size <= start:
                break
            offset = max(offset, end)
        offsets[i] = offset
        placed.append((offset, offset + size, life))
        placed.sort()
        total = max(total, offset + size)
    if total > MAX_ARENA:
        raise ProgramError(f"the arena would need {total} bytes")
    return tuple(offsets), total


def peak(sizes: Sequence[int], lives: Sequence[Life | None], count: int) -> int:
    """Largest sum of the sizes of buffers that are alive at one of ``count`` instructions: no plan needs less."""
    change = np.zeros(count + 3, np.int64)
    for size, life in zip(sizes, lives, strict=True):
        if life:
            change[life.first + 1] += -(-size // ALIGNMENT) * ALIGNMENT
            change[life.last + 2] -= -(-size // ALIGNMENT) * ALIGNMENT
    return int(np.cumsum(change).max())
