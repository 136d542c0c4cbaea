"""How the values of tensors are distributed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcompiler.graph.ir import Feed, Graph
from qcompiler.graph.runner import Runner
from qcompiler.report.measure import in_groups

__all__ = ["BINS", "FEEDS", "Histogram", "histogram", "histograms"]

BINS = 64
FEEDS = 4
"""Feeds that are looked at."""
SAMPLE = 1 << 17
"""Values of a tensor and feed that are counted, evenly spread; the extremes are those of all."""


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


def histograms(graph: Graph, names: Sequence[str], feeds: Sequence[Feed]) -> dict[str, Histogram]:
    """Of float tensors of ``graph`` on at most `FEEDS` feeds; other tensors are left out."""
    chosen = feeds[:FEEDS]
    given = [name for name in names if chosen and name in chosen[0] and chosen[0][name].dtype.kind == "f"]
    found = {name: histogram([feed[name] for feed in chosen]) for name in given}
    computed = [name for name in names if chosen and name not in chosen[0]]
    for group in in_groups(computed, graph, chosen[0], len(chosen)) if computed else ():
        runner = Runner(graph, group)
        runs = [runner.run(feed) for feed in chosen]
        found |= {
            name: histogram([values[name] for values in runs]) for name in group if runs[0][name].dtype.kind == "f"
        }
    return found


def histogram(arrays: Sequence[NDArray[np.floating]]) -> Histogram:
    """The histogram of several arrays of any shape."""
    flat = [np.asarray(array).reshape(-1) for array in arrays]
    finite = [values[np.isfinite(values)] for values in flat]
    odd = sum(each.size for each in flat) - sum(each.size for each in finite)
    finite = [values for values in finite if values.size]
    if not finite:
        return Histogram(0.0, 0.0, [], odd)
    least, most = min(float(each.min()) for each in finite), max(float(each.max()) for each in finite)
    sample = np.concatenate([each[:: -(-each.size // SAMPLE)] for each in finite]).astype(np.float64)
    width = (most - least) / BINS
    places = np.zeros(sample.size, np.int64) if width <= 0 else ((sample - least) / width).astype(np.int64)
    return Histogram(least, most, np.bincount(np.clip(places, 0, BINS - 1), minlength=BINS).tolist(), odd)
