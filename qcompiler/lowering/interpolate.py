"""Tables of 65536 codes become piecewise linear functions where no code is more than one step off.

Every line is fitted to the codes of its segment by least squares, so it runs through the middle of their staircase, and the result is
compared with the table for every code. Codes at which the table saturates say nothing about the function, so they do not take part where
others do. A table without such a form (a jump, a kink that 16-bit codes resolve) stays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.ir import Constant, Graph
from qcompiler.runtime.piecewise import MOST_FRACTION, MOST_WIDTH_BITS, SEGMENTS, Piecewise

_CODES = 65536
_LARGEST = 32767
_MOST_STEPS = 1


def interpolate_tables(graph: Graph) -> Graph:
    """Rewrite the tables of int16 codes in ``graph`` in place, and return it."""
    found: dict[bytes, Piecewise | None] = {}
    for node in graph.nodes:
        if node.op != "Table" or node.inputs[1].values.size != _CODES:
            continue
        entries = np.asarray(node.inputs[1].values)
        key = entries.dtype.str.encode() + entries.tobytes()
        if key not in found:
            found[key] = interpolated(entries)
        lines = found[key]
        if lines is None:
            continue
        numbers = {name: getattr(lines, name) for name in ("first", "width_bits", "fraction", "lo", "hi")}
        node.op, node.attrs = "PiecewiseLinear", {**numbers, "dtype": entries.dtype.name}
        node.inputs = [node.inputs[0], *(Constant(f"{node.name}_{name}", getattr(lines, name)) for name in ("base", "slope"))]
    return graph


def interpolated(entries: NDArray[Any]) -> Piecewise | None:
    """The function with the fewest lines whose every code is at most one step from ``entries``; None: there is none.

    Args:
        entries: uint8 or int16 [65536], for int16 codes in ascending order.
    """
    table = entries.astype(np.int64)
    changes = np.flatnonzero(np.diff(table))
    start, end = (int(changes[0]), int(changes[-1]) + 2) if changes.size else (0, 1)
    for segments in SEGMENTS:
        lines = _fitted(table, start, end, segments)
        if np.abs(lines.codes() - table).max() <= _MOST_STEPS:
            return lines
    return None


def _fitted(table: NDArray[np.int64], start: int, end: int, segments: int) -> Piecewise:
    """Lines over the entries from ``start`` to ``end`` (exclusive)."""
    bits = next(bits for bits in range(MOST_WIDTH_BITS + 1) if segments << bits >= end - start)
    width, lo, hi = 1 << bits, int(table.min()), int(table.max())
    first = max(min(start, _CODES - segments * width), 0)
    places = first + np.arange(segments * width).reshape(segments, width)
    values = table[np.minimum(places, _CODES - 1)].astype(np.float64)
    weights = ((values > lo) & (values < hi) & (places < _CODES)).astype(np.float64)
    weights[weights.sum(axis=1) < 2] = 1.0
    fraction = next(bits for bits in range(MOST_FRACTION, -1, -1) if max(abs(lo), abs(hi)) << bits <= _LARGEST or bits == 0)
    left, right = (np.rint(side * 2.0**fraction) for side in _line_ends(values, weights))
    left = np.clip(left, -_LARGEST - 1, _LARGEST)
    rise = np.clip(right - left, -_LARGEST, _LARGEST)
    return Piecewise(left.astype(np.int16), rise.astype(np.int16), first - _CODES // 2, bits, fraction, lo, hi)


def _line_ends(values: NDArray[np.float64], weights: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weighted least squares: the lines' values at the first code of their segment and at that of the next."""
    width = values.shape[1]
    total = weights.sum(axis=1)
    steps = np.arange(width, dtype=np.float64)
    middle, mean = (weights * steps).sum(axis=1) / total, (weights * values).sum(axis=1) / total
    away = steps - middle[:, None]
    spread = (weights * away * away).sum(axis=1)
    slope = (weights * away * values).sum(axis=1) / np.maximum(spread, 1e-9)
    left = mean - slope * middle
    return left, left + slope * width
