"""Columns of an output that are of very different size: one figure over all of them would tell of the largest alone.

Boxes in pixels beside scores from 0 to 1, several targets of a regressor in their own units: columns are the indices of
one axis of an output, and groups of them are found in the float model's answers. The root mean square of each column is
sorted, and where neighbours differ by a factor of `GAP` and more, another group begins. Columns that a Sigmoid or
another operator of known range writes are of one size, however rarely they rise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.graph.intervals import BOUNDED, bounded_source
from qcompiler.graph.ir import Graph, Tensor, producer

__all__ = ["Columns", "bounded_columns", "find_columns"]

GAP = 10.0
MOST_COLUMNS, MOST_GROUPS = 4096, 6

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Columns:
    """A group of columns.

    Attributes:
        axis: of the output.
        indices: ascending.
        rank: of the output.
    """

    axis: int
    indices: tuple[int, ...]
    rank: int

    def of(self, values: Array) -> Array:
        """Their part of an output."""
        return np.take(values, self.indices, axis=self.axis)

    def __str__(self) -> str:
        """As NumPy writes it: ``[:, 4:14]``, ``[:, 0,3,7]``."""
        first, last = self.indices[0], self.indices[-1]
        if len(self.indices) == last - first + 1:
            text = str(first) if first == last else f"{first}:{last + 1}"
        else:
            text = ",".join(map(str, self.indices[:6])) + (",…" if len(self.indices) > 6 else "")
        return "[" + ", ".join([":"] * self.axis + [text]) + "]"


def find_columns(answers: Sequence[Array], bounded: Mapping[int, Sequence[range]] | None = None) -> list[Columns]:
    """Groups of columns of very different size; none where all are alike.

    Args:
        answers: values of one output for several feeds, of one rank.
        bounded: by axis, runs of columns whose range is known,
        each of one size. An axis of 0 says so of the whole output.
    """
    bounded = bounded or {}
    rank = answers[0].ndim if answers else 0
    if rank < 2 or 0 in bounded or answers[0].dtype.kind != "f" or any(each.ndim != rank for each in answers):
        return []
    found = [groups for axis in range(1, rank) if (groups := _groups(answers, axis, bounded.get(axis, ())))]
    return max(found, key=lambda groups: len(groups), default=[])


def _groups(answers: Sequence[Array], axis: int, bounded: Sequence[range]) -> list[Columns]:
    sizes = {each.shape[axis] for each in answers}
    size = sizes.pop()
    if sizes or not 2 <= size <= MOST_COLUMNS:
        return []
    power = _power(answers, axis)
    for run in bounded:
        power[run.start:run.stop] = max(float(power[run.start:run.stop].max(initial=0.0)), 1e-30)
    alive = np.flatnonzero(power > 0)
    order = alive[np.argsort(power[alive], kind="stable")]
    steps = np.diff(np.log10(power[order])) / 2
    cuts = np.sort(np.argsort(-steps, kind="stable")[:MOST_GROUPS - 1])
    cuts = cuts[steps[cuts] >= np.log10(GAP)]
    if not cuts.size:
        return []
    return [Columns(axis, tuple(sorted(part.tolist())), answers[0].ndim) for part in np.split(order, cuts + 1)]


def _power(answers: Sequence[Array], axis: int) -> NDArray[np.float64]:
    """Mean square of each column's finite values [columns]."""
    total, count = np.zeros(answers[0].shape[axis]), 0
    for each in answers:
        rows = np.moveaxis(np.asarray(each, np.float64), axis, -1).reshape(-1, each.shape[axis])
        total += np.square(np.where(np.isfinite(rows), rows, 0.0)).sum(axis=0)
        count += rows.shape[0]
    return np.asarray(total / max(count, 1))


def bounded_columns(graph: Graph) -> dict[str, dict[int, list[range]]]:
    """By name of an output, the columns that operators of known range write: {axis: runs}, {0: …} for all of it."""
    return {str(tensor.name): found for tensor in graph.outputs if (found := _bounded(tensor))}


def _bounded(tensor: Tensor) -> dict[int, list[range]]:
    node = producer(tensor)
    while node is not None and node.op in ("Cast", "Identity", "QuantizeLinear", "DequantizeLinear"):
        tensor, node = node.inputs[0], producer(node.inputs[0])
    if _is_bounded(tensor):
        return {0: []}
    if node is None or node.op != "Concat" or tensor.shape is None:
        return {}
    axis, start, runs = int(node.attrs["axis"]) % len(tensor.shape), 0, []
    for part in node.inputs:
        size = part.shape[axis] if part.shape is not None else None
        if not isinstance(size, int | np.integer):
            return {}
        if _is_bounded(part):
            runs.append(range(start, start + int(size)))
        start += int(size)
    return {axis: runs} if axis and runs else {}


def _is_bounded(tensor: Tensor) -> bool:
    source = bounded_source(tensor)
    return source is not None and source.op in BOUNDED
