"""Below which value a logit no longer matters.

Softmax gives ``exp(x - max)``: a logit `MARGIN` below the smallest row maximum is worth less than e^-MARGIN of its row,
so a grid need not reach further down, however negative a mask constant is. The bound moves backwards through what adds,
picks or rearranges logits: with ``s = a + b``, ``b`` below ``floor(s) - max(a)`` puts ``s`` below its floor. A tensor
has a floor only when every reader grants one; for a tensor that holds minus infinity, which no grid can reach, one
reader is enough.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from qcompiler.calibration.collect import HUGE
from qcompiler.calibration.observers import Range
from qcompiler.graph.ir import Graph, Node, Tensor, constant_of, is_float, producer

__all__ = ["MARGIN", "softmax_floors"]

MARGIN = 20.0
_SAME = frozenset(
    {
        "Cast",
        "CastLike",
        "Concat",
        "Expand",
        "Flatten",
        "Identity",
        "Max",
        "Min",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
        "Where",
    }
)


def softmax_floors(
    graph: Graph, ranges: Mapping[str, Range], row_maxima: Mapping[str, float], left_float: Collection[int] = ()
) -> dict[str, float]:
    """Floors by tensor name (constants included).

    Args:
        graph: float graph, topologically sorted.
        ranges: observed ranges by tensor name.
        row_maxima: smallest row maximum by name of a Softmax input.
        left_float: ids of nodes without grids; what one writes has a grid for its other readers alone.
    """
    outputs = {id(tensor) for tensor in graph.outputs if id(producer(tensor)) not in left_float}
    floors: dict[str, float] = {}
    refused: set[str] = set()
    for node in reversed(graph.nodes):
        for slot, tensor in enumerate(node.inputs):
            if not is_float(tensor) or (id(node) in left_float and id(producer(tensor)) in left_float):
                continue
            infinite = _is_infinite(tensor, ranges)
            whole = id(node) in left_float or (id(tensor) in outputs and not infinite)
            floor = None if whole else _floor_through(node, slot, floors, ranges, row_maxima)
            if floor is None and infinite:
                continue
            if floor is None:
                refused.add(tensor.name)
                floors.pop(tensor.name, None)
            elif tensor.name not in refused:
                floors[tensor.name] = min(floor, floors.get(tensor.name, np.inf))
    return floors


def _floor_through(
    node: Node, slot: int, floors: Mapping[str, float], ranges: Mapping[str, Range], row_maxima: Mapping[str, float]
) -> float | None:
    """The floor that ``node`` grants its input ``slot``."""
    if node.op == "Softmax":
        maximum = row_maxima.get(node.inputs[0].name)
        return None if maximum is None or not np.isfinite(maximum) else maximum - MARGIN
    below = min((floors.get(out.name, -np.inf) for out in node.outputs), default=-np.inf)
    if not np.isfinite(below):
        return None
    if node.op in _SAME:
        return below
    if node.op == "Add":
        other = _largest(node.inputs[1 - slot], ranges)
        return below - other if other is not None and np.isfinite(other) else None
    factor = _positive_scalar(node.inputs[1 - slot]) if len(node.inputs) == 2 else None
    if node.op == "Mul" and factor:
        return below / factor
    if node.op == "Div" and slot == 0 and factor:
        return below * factor
    return None


def _is_infinite(tensor: Tensor, ranges: Mapping[str, Range]) -> bool:
    value = constant_of(tensor)
    if value is not None:
        return bool(np.isneginf(value).any())
    return tensor.name in ranges and ranges[tensor.name].lo == -np.inf


def _largest(tensor: Tensor, ranges: Mapping[str, Range]) -> float | None:
    value = constant_of(tensor)
    if value is not None:
        return float(value.max()) if value.size else None
    return ranges[tensor.name].hi if tensor.name in ranges else None


def _positive_scalar(tensor: Tensor) -> float | None:
    value = constant_of(tensor)
    if value is None or value.size != 1 or not float(value.reshape(())) > 0:
        return None
    return min(float(value.reshape(())), HUGE)  # where the grid of the constant ends
