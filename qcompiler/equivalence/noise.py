"""The quantization noise that a diagonal transform of a region leads to, predicted without running anything.

With channels divided by s, a grid of step ``d`` over all channels of a tensor and one of step ``d_o`` for row o of the
weights ``W s`` that read it, each rounding adds noise of power ``d^2 / 12``, independent of everything else. The
outputs of the readers then err by

    sum over tensors   d^2 / 12  sum_j s_j^2 |W_j|^2      +      sum over rows   d_o^2 / 12  sum_j E[x_j^2] / s_j^2

relative to their energy. The first term falls and the second one rises as large channels are made smaller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.equivalence.levels import Levels
from qcompiler.equivalence.matrices import columns_of, groups_of, rows_of
from qcompiler.equivalence.regions import Place, Region
from qcompiler.equivalence.statistics import ChannelRange
from qcompiler.graph.ir import Node, constant_of

__all__ = ["Reader", "RegionNoise", "grid_range", "region_noise"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Reader:
    """A layer that reads a place.

    Attributes:
        node, place: the layer, and where it reads.
        square: float64 [C], mean square of its input channels.
        energy: float64 [C], sum of squares of the weights that read a channel.
        largest: float64 [O, C / groups], the largest magnitude over taps.
        taps, groups: their number.
    """

    node: Node
    place: Place
    square: Array
    energy: Array
    largest: Array
    taps: int
    groups: int

    @property
    def columns(self) -> Array:
        """float64 [C]: the largest weight that reads each channel."""
        return np.asarray(
            self.largest.reshape(self.groups, -1, self.largest.shape[1]).max(axis=1, initial=0.0).reshape(-1)
        )

    @property
    def signal(self) -> float:
        """Energy of the outputs if the channels were independent."""
        return max(float((self.square * self.energy).sum()), 1e-30)

    def noise(self, divisor: Array, levels: float) -> float:
        """Noise of rounded weights relative to the signal, with the channels divided by ``divisor`` [C]."""
        grouped = divisor.reshape(self.groups, 1, -1)
        steps = (self.largest.reshape(self.groups, -1, grouped.shape[2]) * grouped).max(axis=2, initial=0.0) / levels
        squares = (self.square / divisor**2).reshape(self.groups, -1).sum(axis=1)
        return float((np.square(steps).sum(axis=1) * squares).sum()) * self.taps / 12 / self.signal


def _reader(place: Place, node: Node, square: Array) -> Reader:
    rows = rows_of(node, np.asarray(constant_of(node.inputs[1]), np.float64))
    energy = np.square(columns_of(node, rows)).sum(axis=(1, 2))
    return Reader(node, place, square, energy, np.abs(rows).max(axis=2), rows.shape[2], groups_of(node))


@dataclass(frozen=True, eq=False)
class RegionNoise:
    """A region's grids and readers.

    Attributes:
        region: the region.
        readers: layers that read it.
        grids: for each grid, its places with their ranges.
        weight: float64 [classes], what noise of power 1 in a class does to the outputs, relative to the signal.
    """

    region: Region
    readers: Sequence[Reader]
    grids: Sequence[Sequence[tuple[Place, ChannelRange]]]
    weight: Array

    @property
    def largest(self) -> Array:
        """float64 [classes]: the largest magnitude of each class."""
        seen = [place.gather(extent.largest, self.region.classes) for grid in self.grids for place, extent in grid]
        return np.asarray(np.max(seen, axis=0))

    @property
    def largest_by_side(self) -> tuple[Array, Array]:
        """As `largest`, of the channels that take the factor and of those that take its inverse."""
        sides = np.zeros((2, self.region.classes))
        for place, extent in (spot for grid in self.grids for spot in grid):
            for side, inverse in enumerate((False, True)):
                found = place.gather(np.where(place.inverse == inverse, extent.largest, 0.0), self.region.classes)
                sides[side] = np.maximum(sides[side], found)
        return sides[0], sides[1]

    @property
    def columns(self) -> Array:
        """float64 [classes]: the largest weight that reads each class."""
        return np.asarray(np.max([r.place.gather(r.columns, self.region.classes) for r in self.readers], axis=0))

    def total(self, divisors: Array, levels: Levels) -> float:
        """Predicted noise of the readers' outputs, with the classes divided by ``divisors`` [classes]."""
        of_weights = sum(reader.noise(reader.place.spread(divisors), levels.weight) for reader in self.readers)
        scaled = float((self.weight * divisors**2).sum()) / 12
        return of_weights + scaled * sum((_extent(grid, divisors) / levels.activation) ** 2 for grid in self.grids)


def grid_range(grid: Sequence[tuple[Place, ChannelRange]], divisors: Array) -> tuple[float, float]:
    """Smallest and largest value of the tensors on a grid, 0 included, with the classes divided by ``divisors``."""
    low, high = 0.0, 0.0
    for place, seen in grid:
        divisor = place.spread(divisors)
        low = min(low, float((seen.low / divisor).min(initial=0.0)))
        high = max(high, float((seen.high / divisor).max(initial=0.0)))
    return low, high


def _extent(grid: Sequence[tuple[Place, ChannelRange]], divisors: Array) -> float:
    low, high = grid_range(grid, divisors)
    return high - low


def region_noise(region: Region, seen: Mapping[str, ChannelRange], grids: Mapping[str, str]) -> RegionNoise:
    """What `RegionNoise` needs to know.

    Args:
        region: a region that layers read.
        seen: ranges, by tensor name; of one tensor of a grid at least.
        grids: by tensor name, the name of the grid it is on; tensors that are not there have none.
    """
    readers = [
        _reader(place, end.node, seen[place.tensor.name].square)
        for place, end in region.ends(writes=False, role="weight")
    ]
    by_grid: dict[str, list[tuple[Place, ChannelRange]]] = {}
    for place in region.places:
        name = place.tensor.name
        if name in grids and name in seen:
            by_grid.setdefault(grids[name], []).append((place, seen[name]))
    weight = np.zeros(region.classes)
    for reader in readers:
        live = reader.place.classes >= 0
        np.add.at(weight, reader.place.classes[live], (reader.energy / reader.signal)[live])
    return RegionNoise(region, readers, list(by_grid.values()), weight)
