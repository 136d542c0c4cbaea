"""Grids whose levels are fitted to a layer's weight.

All rows of a layer share the levels, each with its own scale, so they are fitted to the rows divided by their scales.
Fitting and the search for the scales alternate; a squared error of a row counts with the square of its scale.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from qcompiler.errors import OptionError
from qcompiler.grids.cluster import cluster_centres, nearest_centre
from qcompiler.grids.codebooks import power
from qcompiler.grids.grid import LARGEST_LEVEL, Grid, integer_levels, uniform
from qcompiler.grids.scale_search import fit_scale, grid_loss, importance_of, in_blocks, minimize

__all__ = ["KMeansGrid", "PowerGrid", "SplitGrid"]

SAMPLE = 1 << 16
"""Most weights that an exponent is fitted to."""
EXPONENTS = np.round(np.arange(0.35, 1.225, 0.05), 2)
CLUSTERS = 3
ROUNDS = 5

Array = NDArray[Any]


@dataclass(frozen=True)
class FittedGrid(ABC):
    """A `GridFamily` whose levels follow the weight.

    Attributes:
        bits: as many as the kind of grid may have.
        block: see `Grid`.
        largest: largest magnitude of a level.

    Raises:
        OptionError: too few or too many bits.
    """

    kind: ClassVar[str]
    fewest: ClassVar[int] = 2
    most: ClassVar[int] = 8
    bits: int
    block: int | None = None
    largest: int = LARGEST_LEVEL

    def __post_init__(self) -> None:
        if not self.fewest <= self.bits <= self.most:
            raise OptionError(f"a {self.kind} grid has {self.fewest} to {self.most} bits, not {self.bits}")

    @property
    def name(self) -> str:
        """As the command line calls it."""
        return f"{self.kind}{self.bits}"

    @abstractmethod
    def fit(self, weight: Array, metric: Array | None = None) -> Grid:
        """See `GridFamily.fit`."""

    def within(self, largest: int) -> FittedGrid:
        """See `GridFamily.within`."""
        return replace(self, largest=min(self.largest, largest))


@dataclass(frozen=True)
class PowerGrid(FittedGrid):
    """The power grid of best exponent under each row's best scale (NUPES), data-free or weighted by the metric.

    It has 2 to 8 bits; with 2 there is nothing to choose, the levels are -1, 0, 1.
    """

    kind: ClassVar[str] = "power"

    def fit(self, weight: Array, metric: Array | None = None) -> Grid:
        """See `GridFamily.fit`. The exponent is 1 (uniform) where no other does better."""
        if self.bits == 2:
            return power(1.0, 2, self.block)
        step = -(-weight.size // SAMPLE)
        some = weight[:, :: min(step, weight.shape[1])]

        def loss(exponents: NDArray[np.float64]) -> NDArray[np.float64]:
            grids = [power(float(exponent), self.bits, self.block, self.largest) for exponent in exponents.reshape(-1)]
            return np.array([grid_loss(grid, some, metric) for grid in grids])

        exponent, _ = minimize(loss, EXPONENTS, 4)
        return power(round(float(exponent.reshape(-1)[0]), 3), self.bits, self.block, self.largest)


@dataclass(frozen=True)
class KMeansGrid(FittedGrid):
    """A free code book: the 2^bits levels of least squared error, 0 among them."""

    kind: ClassVar[str] = "kmeans"

    def fit(self, weight: Array, metric: Array | None = None) -> Grid:
        """See `GridFamily.fit`."""
        best, least = uniform(self.bits, self.block).within(self.largest), np.inf
        if not np.any(weight):
            return best
        scale = np.sqrt(np.mean(in_blocks(weight, self.block) ** 2, axis=1))
        for _ in range(ROUNDS):
            grid = Grid(self.name, self._levels(*_normalised(scale, self.block, weight, metric)), self.block)
            loss = grid_loss(grid, weight, metric)
            if loss < least:
                best, least = grid, loss
            scale = fit_scale(grid, weight, metric)
        return best

    def _levels(self, values: Array, counts: Array) -> NDArray[np.int16]:
        return integer_levels(cluster_centres(values, 2**self.bits, counts, pinned=0.0), self.largest)


@dataclass(frozen=True)
class SplitGrid(FittedGrid):
    """SplitQuant as one grid: three clusters (low, middle, high), each of evenly spaced levels over its members.

    ``bits``, 1 to 6, are those of each branch. A code says cluster and place in it, so it costs up to two bits more in
    store.
    """

    kind: ClassVar[str] = "split"
    fewest: ClassVar[int] = 1
    most: ClassVar[int] = 6

    def fit(self, weight: Array, metric: Array | None = None) -> Grid:
        """See `GridFamily.fit`."""
        if not np.any(weight):
            return uniform(2, self.block)
        values, counts = _normalised(fit_scale(uniform(8, self.block), weight), self.block, weight, metric)
        cluster = nearest_centre(values, cluster_centres(values, CLUSTERS, counts))
        branches = [self._branch(values[cluster == index]) for index in np.unique(cluster)]
        return Grid(self.name, integer_levels(np.concatenate(branches), self.largest), self.block)

    def _branch(self, members: Array) -> Array:
        """2^bits levels over the range of the members, 0 among them where they lie on both sides of it."""
        low, high = float(members.min()), float(members.max())
        count = 2**self.bits
        if not low < 0 < high:
            return np.linspace(low, high, count)
        step = (high - low) / (count - 1)
        return np.asarray((np.arange(count) - np.rint(-low / step)) * step)


def _normalised(scale: Array, block: int | None, weight: Array, metric: Array | None) -> tuple[Array, Array]:
    """Weights divided by their scales, and the weight of each squared error; rows without a scale are left out."""
    rows, importance = in_blocks(weight, block), importance_of(weight, metric)
    counts = in_blocks(
        np.ones(weight.shape) if importance is None else np.broadcast_to(importance, weight.shape), block
    )
    step = scale.reshape(-1, 1).astype(np.float64)
    used = (np.abs(rows).max(axis=1) > 0) & (step[:, 0] > 0)  # of the smallest numbers the squares are 0
    return rows[used] / step[used], counts[used] * step[used] ** 2
