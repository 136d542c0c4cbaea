"""Range and mean square of each channel of a region on the calibration feeds, reduced inside the graph."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from qcompiler.equivalence.regions import Place
from qcompiler.errors import DataError
from qcompiler.graph.ir import Feed, Graph
from qcompiler.graph.runner import Runner, light_model
from qcompiler.linear_algebra import gram

__all__ = ["ChannelRange", "Samples", "channel_ranges", "sample_channels"]

Array = NDArray[Any]
_REDUCTIONS = ("ReduceMin", "ReduceMax", "ReduceSumSquare")


@dataclass(frozen=True)
class ChannelRange:
    """Of each channel of a place: smallest and largest value, and mean square, float64 [C] each."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    square: NDArray[np.float64]

    @property
    def largest(self) -> NDArray[np.float64]:
        """Largest magnitude of each channel."""
        return np.asarray(np.maximum(np.abs(self.low), np.abs(self.high)))


def channel_ranges(graph: Graph, places: Sequence[Place], data: Iterable[Feed]) -> dict[str, ChannelRange]:
    """Ranges of the channels of ``places``, by tensor name.

    Raises:
        DataError: no feed at all.
    """
    proto, weights = light_model(graph)
    wanted: list[str] = []
    for place in places:
        name, axes = place.tensor.name, [axis for axis in range(place.rank) if axis not in place.layout]
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(axes, np.int64), f"{name}//other_axes"))
        for op in _REDUCTIONS:
            wanted.append(f"{name}//{op}")
            proto.graph.node.append(
                helper.make_node(op, [name, f"{name}//other_axes"], [wanted[-1]], keepdims=0, noop_with_empty_axes=1)
            )
        wanted.append(f"{name}//Size")
        proto.graph.node.append(helper.make_node("Size", [name], [wanted[-1]]))
    runner = Runner(proto, wanted, weights=weights)
    sums = {
        place.tensor.name: (
            np.full(place.channels, np.inf),
            np.full(place.channels, -np.inf),
            np.zeros(place.channels),
            0,
        )
        for place in places
    }
    empty = True
    for feed in data:
        empty = False
        values = runner.run(feed)
        for place in places:
            name = place.tensor.name
            low, high, square = (_in_order(values[f"{name}//{op}"], place) for op in _REDUCTIONS)
            known = sums[name]
            count = int(values[f"{name}//Size"]) // max(place.channels, 1)
            sums[name] = (
                np.fmin(known[0], low),
                np.fmax(known[1], high),
                known[2] + np.nan_to_num(square),
                known[3] + count,
            )
    if empty:
        raise DataError("the calibration set is empty; give at least one feed")
    return {name: ChannelRange(low, high, square / max(count, 1)) for name, (low, high, square, count) in sums.items()}


def _in_order(values: Array, place: Place) -> Array:
    """Reduced values, whose axes are those of the layout in ascending order, by channel."""
    return np.transpose(values, np.argsort(np.argsort(place.layout))).reshape(-1).astype(np.float64)


@dataclass(frozen=True, eq=False)
class Samples:
    """Rows of channels of a place.

    Attributes:
        rows: float64 [n, C]: the largest ones of every feed, and some drawn from all.
        gram: float64 [C, C], the mean of ``x xᵀ`` over all rows.
    """

    rows: NDArray[np.float64]
    gram: NDArray[np.float64]


def sample_channels(graph: Graph, places: Sequence[Place], data: Iterable[Feed], seed: int) -> dict[str, Samples]:
    """Samples of ``places``, by tensor name; places of too many channels for a Gram matrix are not meant for it.

    Raises:
        DataError: no feed at all.
    """
    runner, rng = Runner(graph, [place.tensor.name for place in places]), np.random.default_rng(seed)
    kept: dict[str, list[Array]] = {place.tensor.name: [] for place in places}
    grams = {place.tensor.name: np.zeros((place.channels, place.channels)) for place in places}
    counts = dict.fromkeys(kept, 0)
    for feed in data:
        values = runner.run(feed)
        for place in places:
            name, rows = place.tensor.name, _rows(values[place.tensor.name], place)
            kept[name].append(rows[_telling(rows, rng)])
            grams[name] += gram(rows[None])[0]
            counts[name] += len(rows)
    if not all(counts.values()):
        raise DataError("the calibration set is empty; give at least one feed")
    return {
        name: Samples(np.concatenate(rows).astype(np.float64), grams[name] / counts[name])
        for name, rows in kept.items()
    }


def _rows(values: Array, place: Place) -> Array:
    """A tensor as [positions, channels]."""
    others = [axis for axis in range(place.rank) if axis not in place.layout]
    return np.transpose(values, [*others, *place.layout]).reshape(-1, place.channels)


SAMPLES = 48
"""Rows of each kind kept per feed."""


def _telling(rows: Array, rng: np.random.Generator) -> NDArray[np.int64]:
    """Indices of the rows of largest norm, of those with outliers of a channel, and of some random ones."""
    norms, relative = (
        np.square(rows).sum(axis=1),
        np.abs(rows / np.maximum(np.abs(rows).max(axis=0, initial=0.0), 1e-30)).max(axis=1),
    )
    drawn = rng.permutation(len(rows))[:SAMPLES]
    return np.unique(
        np.concatenate(
            [np.argsort(norms, kind="stable")[-SAMPLES:], np.argsort(relative, kind="stable")[-SAMPLES:], drawn]
        )
    )
