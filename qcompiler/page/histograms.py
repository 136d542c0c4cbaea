"""How the values of tensors are distributed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.graph.ir import Feed, Graph
from qcompiler.graph.runner import Runner

__all__ = ["BINS", "FEEDS", "Histogram", "histogram", "histograms"]

Array = NDArray[Any]

BINS = 64
FEEDS = 4
"""Feeds that are looked at."""
SAMPLE = 1 << 14
"""Finite values of a tensor and feed that are counted, evenly spread; the extremes are those of all."""


@dataclass(frozen=True)
class Histogram:
    """Counts of values between the extremes, in bins of one width.

    Attributes:
        least, most: smallest and largest finite value.
        counts: values in each bin; empty where no value is finite.
        odd: how many values are infinite or NaN.
    """

    least: float
    most: float
    counts: list[int]
    odd: int = 0


@dataclass(frozen=True)
class _Part:
    """What is kept of one array: its extremes, and some of its finite values."""

    least: float
    most: float
    sample: Array
    odd: int


def histograms(graph: Graph, names: Sequence[str], feeds: Sequence[Feed]) -> dict[str, Histogram]:
    """Of float tensors of ``graph`` on at most `FEEDS` feeds; other tensors are left out.

    One session computes all of them, one feed after the other: the values of one feed are held at a time.
    """
    chosen = feeds[:FEEDS]
    computed = [name for name in names if chosen and name not in chosen[0]]
    runner = Runner(graph, computed) if computed else None
    parts: dict[str, list[_Part]] = {}
    for feed in chosen:
        values = dict(feed) if runner is None else {**feed, **runner.run(feed)}
        for name in names:
            if values[name].dtype.kind == "f":
                parts.setdefault(name, []).append(_part(values[name]))
    return {name: _counted(found) for name, found in parts.items()}


def histogram(arrays: Sequence[Array]) -> Histogram:
    """The histogram of several arrays of any shape."""
    return _counted([_part(array) for array in arrays])


def _part(array: Array) -> _Part:
    flat = array.reshape(-1)
    finite = flat[np.isfinite(flat)]
    if not finite.size:
        return _Part(np.inf, -np.inf, finite, flat.size)
    sample = finite[:: -(-finite.size // SAMPLE)].copy()
    return _Part(float(finite.min()), float(finite.max()), sample, flat.size - finite.size)


def _counted(parts: Sequence[_Part]) -> Histogram:
    least, most = min((part.least for part in parts), default=0.0), max((part.most for part in parts), default=0.0)
    odd = sum(part.odd for part in parts)
    if not least <= most:
        return Histogram(0.0, 0.0, [], odd)
    sample = np.concatenate([part.sample for part in parts]).astype(np.float64)
    width = (most - least) / BINS
    places = np.zeros(sample.size, np.int64) if width <= 0 else ((sample - least) / width).astype(np.int64)
    return Histogram(least, most, np.bincount(np.clip(places, 0, BINS - 1), minlength=BINS).tolist(), odd)
