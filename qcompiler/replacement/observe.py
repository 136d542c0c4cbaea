"""Data a replacement is fitted to: rows of a region's inputs, hidden neurons and float outputs.

Inputs are those of the graph as it has become so far, targets those of the float graph: each replacement takes back
what it can of the errors of those before it. One feed is held at a time; of its rows a sample is taken, and of all
feeds one in `HELD_SHARE` is held out (of too few feeds, one row in so many).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.calibration.gram import FEWEST_ROWS, MOST_ROWS
from qcompiler.calibration.patches import draw_rows
from qcompiler.errors import DataError
from qcompiler.feeds.selection import HELD_SHARE, count_feeds, held_out
from qcompiler.graph.ir import Feed, Graph
from qcompiler.graph.layers import Layer
from qcompiler.graph.runner import Runner
from qcompiler.linear_algebra import matmul
from qcompiler.replacement.chains import Region, linear_output, rows_of

__all__ = ["Batch", "Judgement", "Observed", "Site", "held_rows", "split_rows"]

Array = NDArray[Any]

ROWS_PER_FEATURE = 16
"""Rows wanted per feature, over all feeds: a fit on few rows overfits."""

_FEWEST_CLUSTERS = 4
"""Held-out feeds from which each feed is one sample; with fewer, rows are."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows of one feed.

    Attributes:
        inputs, hidden: float32 [N, channels], of the graph as it is.
        targets: float32 [N, channels], of the float graph.
        held: bool [N]: not to be fitted to.
    """

    inputs: Array
    hidden: Array
    targets: Array
    held: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Site:
    """Names of the tensors of a region: they are the same in copies of the graph."""

    inputs: str
    hidden: str
    outputs: str

    @staticmethod
    def of(region: Region) -> Site:
        """Those of a region; hidden are the neurons behind its first layer."""
        return Site(region.inputs.name, region.links[0].hidden.name, region.outputs.name)


@dataclass(frozen=True, eq=False)
class Observed:
    """Feeds through a graph and the float graph.

    Attributes:
        graph: as it is.
        reference: the float graph, with the region's outputs under the same name.
        data: feeds.
        seed: of the draws.
    """

    graph: Graph
    reference: Graph
    data: Iterable[Feed]
    seed: int = 0

    def batches(self, region: Region, products: int) -> Iterator[Batch]:
        """The rows of each feed, some `ROWS_PER_FEATURE` for each of so many ``products`` over all feeds.

        Raises:
            DataError: no feed at all.
        """
        site = Site.of(region)
        held, count = split_rows(self.data, products, self.seed)
        here, there = Runner(self.graph, [site.inputs, site.hidden]), Runner(self.reference, [site.outputs])
        for number, feed in enumerate(self.data):
            values = here.run(feed, [site.inputs, site.hidden]) | there.run(feed, [site.outputs])
            rows = [rows_of(region.layers[0], values[name]) for name in (site.inputs, site.hidden, site.outputs)]
            chosen = draw_rows(len(rows[0]), count, np.random.default_rng([self.seed, number]))
            apart = held_rows(held, number, len(chosen))
            inputs, hidden, targets = (part[chosen] for part in rows)
            yield Batch(inputs, hidden, targets, apart)

    def judged(self, graph: Graph, layer: Layer, products: int) -> Judgement:
        """Error of a layer's outputs in ``graph`` against the float model's, matched by name, on held-out feeds.

        Raises:
            DataError: no feed at all.
        """
        output, judgement = linear_output(layer).name, Judgement()
        held, count = split_rows(self.data, products, self.seed)
        by_feed = len(held) >= _FEWEST_CLUSTERS
        here, there = Runner(graph, [output]), Runner(self.reference, [output])
        for number, feed in enumerate(self.data):
            if held and number not in held:
                continue
            got, want = (rows_of(layer, runner.run(feed, [output])[output]) for runner in (here, there))
            chosen = draw_rows(len(want), count, np.random.default_rng([self.seed, number]))[
                :: 1 if held else HELD_SHARE
            ]
            judgement.add(got[chosen].astype(np.float64), want[chosen].astype(np.float64), together=by_feed)
        return judgement


class Judgement:
    """Squared error relative to the outputs' variance, and its confidence; rows of one feed count as one sample."""

    def __init__(self) -> None:
        self._errors: list[Array] = []
        self._means: list[Array] = []
        self._squares: list[Array] = []

    def add(self, got: Array, want: Array, *, together: bool) -> None:
        """Account for rows [N, O]."""
        error, square = np.square(got - want).sum(axis=1), np.square(want).sum(axis=1)
        self._errors.append(error.mean(keepdims=True) if together else error)
        self._squares.append(square.mean(keepdims=True) if together else square)
        self._means.append(want.mean(axis=0, keepdims=True) if together else want)

    def _energies(self) -> Array:
        means, squares = np.concatenate(self._means), np.concatenate(self._squares)
        mean = means.mean(axis=0)
        return np.asarray(squares - 2 * matmul(means, mean) + matmul(mean, mean))

    @property
    def error(self) -> float:
        """The estimate."""
        return float(np.concatenate(self._errors).sum() / max(self._energies().sum(), 1e-30))

    @property
    def deviation(self) -> float:
        """Its standard error, that of a ratio."""
        errors, energies = np.concatenate(self._errors), self._energies()
        samples = len(errors)
        away = np.square(errors - self.error * energies).sum() * samples / max(samples - 1, 1)
        return float(np.sqrt(away) / max(energies.sum(), 1e-30))

    def bound(self, confidence: float) -> float:
        """Upper confidence bound of the error by Student's distribution; infinite for a single sample."""
        from scipy.special import stdtrit

        samples = len(np.concatenate(self._errors))
        return self.error + float(stdtrit(samples - 1, confidence)) * self.deviation if samples > 1 else float("inf")


def split_rows(data: Iterable[Feed], products: int, seed: int) -> tuple[frozenset[int], int]:
    """The held-out feeds, and rows to draw per feed: some `ROWS_PER_FEATURE` for each of ``products`` over all feeds.

    Raises:
        DataError: no feed at all.
    """
    feeds = count_feeds(data)
    if feeds == 0:
        raise DataError("the calibration set is empty; give at least one feed")
    return held_out(feeds, seed), min(max(-(-ROWS_PER_FEATURE * products // feeds), FEWEST_ROWS), MOST_ROWS)


def held_rows(held: frozenset[int], number: int, rows: int) -> NDArray[np.bool_]:
    """Which of a feed's rows are not fitted to: all or none, or, where no feed is held out, one in `HELD_SHARE`."""
    return np.full(rows, number in held) if held else np.arange(rows) % HELD_SHARE == 0


