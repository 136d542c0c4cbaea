"""Simplifies strided walks when a program is bound: fewer dimensions, the innermost one as long as it can be.

Both rewrites keep the set of elements and, where it matters, their order; the proof in `bind.py` looks at the result.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..instructions.instruction import MAX_RANK
from ..instructions.opcodes import BY_NAME

_WORTH_COPYING = 16
"""A dense run of this many elements is better innermost than a longer strided one."""

Axis = tuple[int, tuple[int, ...]]
"""Size, and the stride of every operand."""


def simplified(opcode: str, values: dict[str, int]) -> dict[str, int]:
    """The instruction without dimensions of size 1 and with neighbours merged; only ``move`` may reorder them."""
    operands = BY_NAME[opcode].walked
    if not operands:
        return values
    axes = [(values[f"d{i}"], tuple(values[f"{name}_s{i}"] for name in operands)) for i in range(MAX_RANK)]
    if any(size <= 0 for size, _ in axes):
        return values
    axes = merged([axis for axis in axes if axis[0] != 1])
    if opcode == "move":
        axes = merged(reordered(axes))
    lead = MAX_RANK - len(axes)
    full: list[Axis] = [(1, (0,) * len(operands))] * lead + axes
    result = dict(values)
    for i, (size, strides) in enumerate(full):
        result[f"d{i}"] = size
        result |= {f"{name}_s{i}": stride for name, stride in zip(operands, strides, strict=True)}
    return result


def merged(axes: Sequence[Axis]) -> list[Axis]:
    """Neighbours become one axis where every operand steps through them as through one."""
    result: list[Axis] = []
    for size, strides in axes:
        if result and all(outer == inner * size for outer, inner in zip(result[-1][1], strides, strict=True)):
            result[-1] = (result[-1][0] * size, strides)
        else:
            result.append((size, strides))
    return result


def reordered(axes: Sequence[Axis]) -> list[Axis]:
    """A copy's axes by falling target stride, with the best one to copy along innermost."""
    ordered = sorted(axes, key=lambda axis: -abs(axis[1][1]))
    if not ordered:
        return []
    dense = [axis for axis in ordered if axis[1] == (1, 1) and axis[0] >= _WORTH_COPYING]
    inner = dense[0] if dense else max(ordered, key=lambda axis: axis[0])
    ordered.remove(inner)
    return [*ordered, inner]
