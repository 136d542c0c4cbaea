"""Whole numbers that are counted: lengths, sums of masks, positions, in float tensors.

A grid of step 1 holds them exactly, whatever calibration showed of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.graph.ir import Tensor, constant_of, is_float, producer
from qcompiler.graph.operators import MOVEMENT
from qcompiler.graph.value_kinds import DATA, Kind, Value

__all__ = ["is_count"]

NEARLY = 1e-3
"""Largest number that is added to a count, or bounds it, only to keep a divisor from 0."""

_WHOLE = frozenset({"Abs", "Add", "Ceil", "CumSum", "Floor", "Max", "Min", "Mul", "Neg", "ReduceSum", "Round", "Sub"})
_DEPTH = 12


def is_count(tensor: Tensor, kinds: Mapping[str, Value]) -> bool:
    """True for a float tensor of whole numbers without a bound, but for what keeps a divisor from 0."""
    value = kinds.get(tensor.name, DATA)
    return value.kind == Kind.INDEX and not value.bounded and is_float(tensor) and _is_whole(tensor, kinds, _DEPTH)


def _is_whole(tensor: Tensor, kinds: Mapping[str, Value], depth: int) -> bool:
    value = constant_of(tensor)
    if value is not None:
        return value.dtype.kind in "iub" or bool(np.isfinite(value).all() and np.all(_nearly_whole(value)))
    if not is_float(tensor) and tensor.dtype is not None:
        return True
    few = kinds.get(tensor.name, DATA).values
    if few is not None and np.isfinite(few).all():
        return all(item == round(item) for item in few)
    node = producer(tensor)
    if node is None or depth == 0:
        return False
    if node.op in MOVEMENT or node.op in ("Cast", "CumSum", "ReduceSum"):
        return _is_whole(node.inputs[0], kinds, depth - 1)
    if node.op == "Clip" or node.op in _WHOLE:
        return all(_is_whole(each, kinds, depth - 1) for each in node.inputs if each.name)
    return False


def _nearly_whole(value: NDArray[Any]) -> NDArray[np.bool_]:
    whole = np.rint(value)
    return np.asarray((value == whole) | ((whole == 0) & (np.abs(value) <= NEARLY)))
