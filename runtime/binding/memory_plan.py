"""The memory plan: how long each buffer lives, and where in the arena it lies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..errors import ProgramError
from ..instructions.instruction import Opcode
from ..program.model import Program

ALIGNMENT = 64
"""Bytes: buffers begin at cache lines."""

MAX_ARENA = 1 << 40
"""Most bytes of an arena."""


class Life(NamedTuple):
    """First and last instruction that need a buffer; -1 and the number of instructions stand for inputs and outputs."""

    first: int
    last: int


class Row(NamedTuple):
    """An instruction with its numbers evaluated; operands still are indices.

    Attributes:
        reads, writes: the buffers that it reads and that it writes.
    """

    opcode: Opcode
    values: dict[str, int]
    reads: tuple[int, ...]
    writes: tuple[int, ...]


def liveness(program: Program, rows: Sequence[Row]) -> list[Life | None]:
    """First and last use of every buffer; None: never used.

    Raises:
        ProgramError: an instruction or an output reads a buffer that nothing has written.
    """
    first: dict[int, int] = {port.buffer: -1 for port in program.inputs}
    last = dict(first)
    for index, row in enumerate(rows):
        for buffer in row.reads:
            if buffer not in first:
                raise ProgramError(
                    f"instruction {index} ({program.nodes[index]}): reads b{buffer} before anything has written it"
                )
            last[buffer] = index
        for buffer in row.writes:
            first.setdefault(buffer, index)
            last[buffer] = index
    for port in program.outputs:
        if port.buffer not in first:
            first[port.buffer] = len(rows)  # an empty tensor, or a program that writes nothing
        last[port.buffer] = len(rows)
    return [Life(first[i], last[i]) if i in first else None for i in range(len(program.buffers))]


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


def peak_bytes(sizes: Sequence[int], lives: Sequence[Life | None], count: int) -> int:
    """Largest sum of the sizes of buffers that are alive at one of ``count`` instructions: no plan needs less."""
    change = np.zeros(count + 3, np.int64)
    for size, life in zip(sizes, lives, strict=True):
        if life:
            change[life.first + 1] += -(-size // ALIGNMENT) * ALIGNMENT
            change[life.last + 2] -= -(-size // ALIGNMENT) * ALIGNMENT
    return int(np.cumsum(change).max())


def last_writers(rows: Sequence[Row]) -> dict[int, tuple[int, ...]]:
    """By instruction the buffers that none writes after it."""
    last = {buffer: index for index, row in enumerate(rows) for buffer in row.writes}
    result: dict[int, tuple[int, ...]] = {}
    for buffer, index in last.items():
        result[index] = (*result.get(index, ()), buffer)
    return result
