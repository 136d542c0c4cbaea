"""Turns 65536-entry tables into piecewise linear functions where no code errs by more than one step.

Every line is fitted by least squares to the function whose rounding the table is, as far as the places of its steps
tell, and the result is compared with the table for every code. One step of 8 bits is no small matter where many values
meet it (PP-OCR rec lost 3 dB to that), so among any `_WINDOW` neighbouring codes few may differ; one step of 16 bits
is. Codes at which the table saturates say nothing about the function, so they do not take part where others do. A table
without such a form (a jump, a kink that 16-bit codes resolve) stays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.graph.ir import Constant, Graph
from qcompiler.runtime.instructions.piecewise_linear import MOST_FRACTION, MOST_WIDTH_BITS, SEGMENTS, Piecewise

_CODES = 65536
_LARGEST = 32767
_MOST_STEPS = 1
_WINDOW, _MOST_SHARE = 512, 1 / 16
_INSIDE = 0.4


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
        node.inputs = [
            node.inputs[0],
            *(Constant(f"{node.name}_{name}", getattr(lines, name)) for name in ("base", "slope")),
        ]
    return graph


def interpolated(entries: NDArray[Any]) -> Piecewise | None:
    """The function with the fewest lines that is as close to ``entries`` as the module says; None: there is none.

    Args:
        entries: uint8 or int16 [65536], for int16 codes in ascending order.
    """
    table = entries.astype(np.int64)
    changes = np.flatnonzero(np.diff(table))
    start, end = (int(changes[0]), int(changes[-1]) + 2) if changes.size else (0, 1)
    for segments in SEGMENTS:
        lines = _fitted(table, start, end, segments)
        away = np.abs(lines.codes() - table)
        if away.max() <= _MOST_STEPS and (entries.dtype != np.uint8 or _busiest(away > 0) <= _MOST_SHARE):
            return lines
    return None


def _busiest(differs: NDArray[np.bool_]) -> float:
    """The largest share of True among `_WINDOW` neighbours."""
    window = min(_WINDOW, differs.size)
    sums = np.concatenate([[0], np.cumsum(differs)])
    return float((sums[window:] - sums[:-window]).max()) / window


def _fitted(table: NDArray[np.int64], start: int, end: int, segments: int) -> Piecewise:
    """Lines over the entries ``start`` … ``end`` (exclusive) plus one line's width; farther: the outermost values."""
    margin = -(-(end - start) // segments)
    start, end = max(start - margin, 0), min(end + margin, _CODES)
    bits = next(bits for bits in range(MOST_WIDTH_BITS + 1) if segments << bits >= end - start)
    width, lo, hi = 1 << bits, int(table.min()), int(table.max())
    first = max(min(start, _CODES - segments * width), 0)
    places = first + np.arange(segments * width).reshape(segments, width)
    inside = np.minimum(places, _CODES - 1)
    values, smooth = table[inside].astype(np.float64), _smooth(table)[inside]
    weights = ((values > lo) & (values < hi) & (places < _CODES)).astype(np.float64)
    weights[weights.sum(axis=1) < 2] = 1.0
    fraction = next(
        bits for bits in range(MOST_FRACTION, -1, -1) if max(abs(lo), abs(hi)) << bits <= _LARGEST or bits == 0
    )
    left, right = (np.rint(side * 2.0**fraction) for side in _line_ends(smooth, weights))
    left = np.clip(left, -_LARGEST - 1, _LARGEST)
    rise = np.clip(right - left, -_LARGEST, _LARGEST)
    return Piecewise(left.astype(np.int16), rise.astype(np.int16), first - _CODES // 2, bits, fraction, lo, hi)


def _smooth(table: NDArray[np.int64]) -> NDArray[np.float64]:
    """The function that was rounded to ``table``, from its steps: half-way between two codes where they change."""
    steps = np.flatnonzero(np.diff(table))
    if not steps.size:
        return table.astype(np.float64)
    places, values = steps + 0.5, (table[steps] + table[steps + 1]) / 2
    # up and down again, or down and up: between them lies the code itself
    turns = np.flatnonzero(values[1:] == values[:-1])
    before, after = (places[1] - places[0], places[-1] - places[-2]) if places.size > 1 else (1.0, 1.0)
    places = np.concatenate(
        [[places[0] - before], places, (places[turns] + places[turns + 1]) / 2, [places[-1] + after]]
    )
    values = np.concatenate([[_end(table, 0)], values, table[steps[turns] + 1], [_end(table, -1)]])
    order = np.argsort(places, kind="stable")
    return np.asarray(np.interp(np.arange(_CODES), places[order], values[order]))


def _end(table: NDArray[np.int64], index: int) -> float:
    """The function beyond its last step: the middle of that code, or well inside it where the table saturates."""
    code = int(table[index])
    return code + _INSIDE * bool(code == table.max()) - _INSIDE * bool(code == table.min())


def _line_ends(
    values: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
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
