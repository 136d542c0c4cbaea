"""How far a rewritten graph's outputs are from the float model's: the judge of every tuned pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from qcompiler.calibration.gram import count_feeds, held_out
from qcompiler.ir import Graph
from qcompiler.pass_base import Feed
from qcompiler.runner import Runner

__all__ = ["NetworkLoss", "split_feeds", "spread_feeds"]


def spread_feeds(data: Iterable[Feed], count: int, among: frozenset[int] | None = None) -> list[Feed]:
    """Up to ``count`` feeds evenly spread over ``data`` (over those of the indices ``among``), read so that only these are held."""
    indices = sorted(among) if among is not None else list(range(count_feeds(data)))
    places = np.linspace(0, len(indices) - 1, min(count, len(indices))).round().astype(int)
    wanted = {indices[place] for place in places}
    return [feed for index, feed in enumerate(data) if index in wanted]


def split_feeds(data: Iterable[Feed], count: int, seed: int) -> tuple[list[Feed], list[Feed]]:
    """Up to ``count`` feeds to fit on, and a quarter as many, at least one, to validate on; the same ones where there are too few to split."""
    feeds = count_feeds(data)
    held = held_out(feeds, seed)
    if not held:
        few = spread_feeds(data, count)
        return few, few
    return spread_feeds(data, count, frozenset(range(feeds)) - held), spread_feeds(data, max(count // 4, 1), held)


class NetworkLoss:
    """Squared error of the float outputs over their energy, averaged over outputs and feeds.

    Args:
        reference: the float graph.
        feeds: what to compare on; its outputs are computed once.
    """

    def __init__(self, reference: Graph, feeds: Sequence[Feed]) -> None:
        self._feeds = feeds
        self._expected = _outputs(reference, feeds)

    def __call__(self, graph: Graph) -> float:
        """The loss of a graph; 0 without float outputs."""
        ratios = [
            np.square(values - expected).sum() / max(float(np.square(expected).sum()), 1e-30)
            for got, want in zip(_outputs(graph, self._feeds), self._expected, strict=True) for values, expected in zip(got, want, strict=True)
        ]
        return float(np.mean(ratios)) if ratios else 0.0


def _outputs(graph: Graph, feeds: Sequence[Feed]) -> list[list[NDArray[np.float64]]]:
    runner = Runner(graph)
    return [[value.astype(np.float64) for value in runner.run(feed).values() if np.issubdtype(value.dtype, np.floating)] for feed in feeds]
