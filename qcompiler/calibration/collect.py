"""What the calibration feeds do to the tensors of a float graph, in memory that does not grow with their number.

Ranges are reduced inside the graph itself; histograms take a second look at the feeds, a bounded number of tensors at a
time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from qcompiler.calibration.observers import OBSERVERS, Histogram, ObserverName, Range, beyond
from qcompiler.errors import DataError
from qcompiler.graph.ir import Feed, Graph
from qcompiler.graph.runner import Runner, light_model

__all__ = ["Statistics", "channel_means", "collect_ranges", "input_values", "observe"]

CHUNK_BYTES = 256_000_000
"""Activations of one feed held at once while histograms are counted."""

HUGE = 1e30
"""Magnitude from which a value stands for infinity."""

BLOCKS = 256
"""Blocks of one feed whose extremes are kept."""

MASKED = -130.0
"""A Softmax row whose largest logit is below this is a masked one, unless all are; the pass `clamp-attention-mask`
leaves masks of -168."""


@dataclass
class Statistics:
    """What was seen.

    Attributes:
        ranges: by tensor name; infinite where a value was infinite or NaN.
        row_maxima: by name of a Softmax input, its smallest row maximum (rows that are masked altogether left out).
        elements: by tensor name, its largest number of elements.
        nan: names of tensors that held NaN.
        lows, highs: by tensor name, smallest and largest value of each block: of an index of the first axis, or of
            several neighbouring ones.
        numbers: by tensor name, how many values were seen.
        empty: names of tensors that had no element on some feed.
    """

    ranges: dict[str, Range]
    row_maxima: dict[str, float]
    elements: dict[str, int]
    nan: list[str] = field(default_factory=list)
    lows: dict[str, NDArray[Any]] = field(default_factory=dict)
    highs: dict[str, NDArray[Any]] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)

    def join(self, other: Statistics) -> Statistics:
        """What was seen here and there, of the same tensors."""
        every = list(self.ranges)
        return Statistics(
            {name: self.ranges[name].join(other.ranges[name]) for name in every},
            {name: min(value, other.row_maxima[name]) for name, value in self.row_maxima.items()},
            {name: max(self.elements[name], other.elements[name]) for name in every},
            sorted({*self.nan, *other.nan}),
            {name: np.concatenate([self.lows[name], other.lows[name]]) for name in every},
            {name: np.concatenate([self.highs[name], other.highs[name]]) for name in every},
            {name: self.numbers[name] + other.numbers[name] for name in every},
            sorted({*self.empty, *other.empty}),
        )

    def unseen(self, name: str, floor: float = -np.inf) -> tuple[float, float]:
        """How far beyond what was seen of a tensor its range should reach (`observers.beyond`): below, above."""
        lows, highs = (np.maximum(values, floor) for values in (self.lows[name], self.highs[name]))
        if max(np.abs(lows).max(initial=0.0), np.abs(highs).max(initial=0.0)) >= HUGE:
            return 0.0, 0.0
        return beyond(-lows, self.numbers[name]), beyond(highs, self.numbers[name])


def collect_ranges(
    graph: Graph, names: Sequence[str], data: Iterable[Feed], softmax_axes: Mapping[str, int] | None = None
) -> Statistics:
    """Ranges of ``names`` over all feeds; ``softmax_axes`` maps the inputs of Softmax nodes to their axes.

    Raises:
        DataError: no feed at all.
    """
    axes = dict(softmax_axes or {})
    runner, count = _with_reductions(graph, names, axes), len(names)
    lows: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
    highs: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
    sizes: dict[str, list[int]] = {name: [0] for name in names}
    rows = dict.fromkeys(axes, (np.inf, np.inf))
    nan: set[str] = set()
    without_elements: set[str] = set()
    empty = True
    for feed in data:
        empty = False
        values = list(runner.run(feed).values())
        for name, low, high, size in zip(
            names, values[:count], values[count : 2 * count], values[2 * count : 3 * count], strict=True
        ):
            undefined = np.isnan(low) | np.isnan(high)
            nan |= {name} if undefined.any() else set()
            lows[name].append(_blocks(np.where(undefined, -np.inf, low), np.minimum))
            highs[name].append(_blocks(np.where(undefined, np.inf, high), np.maximum))
            sizes[name].append(int(size))
            without_elements |= {name} if int(size) == 0 else set()
        for name, maxima in zip(axes, values[3 * count:], strict=True):
            rows[name] = _smallest(rows[name], maxima)
    if empty:
        raise DataError("the calibration set is empty; give at least one feed")
    row_maxima = {name: live if np.isfinite(live) else every for name, (live, every) in rows.items()}
    low_blocks, high_blocks = ({name: np.concatenate(found[name]) for name in names} for found in (lows, highs))
    ranges = {name: _range(low_blocks[name], high_blocks[name]) for name in names}
    elements, numbers = {name: max(sizes[name]) for name in names}, {name: sum(sizes[name]) for name in names}
    return Statistics(
        ranges, row_maxima, elements, sorted(nan), low_blocks, high_blocks, numbers, sorted(without_elements)
    )


def _range(lows: NDArray[Any], highs: NDArray[Any]) -> Range:
    lo, hi = float(lows.min(initial=np.inf)), float(highs.max(initial=-np.inf))
    return Range(lo, hi) if lo <= hi else Range(0.0, 0.0)


def _blocks(extremes: NDArray[Any], reduce: np.ufunc) -> NDArray[Any]:
    """Extremes of at most `BLOCKS` runs of neighbours, float64."""
    flat = np.asarray(extremes, np.float64).reshape(-1)
    if flat.size <= BLOCKS:
        return flat
    return np.asarray(reduce.reduceat(flat, np.arange(0, flat.size, -(-flat.size // BLOCKS))))


def _with_reductions(graph: Graph, names: Sequence[str], axes: Mapping[str, int]) -> Runner:
    """Runs the model with min, max and size of each tensor, and the row maxima of Softmax inputs, as further tensors.

    Min and max are those of each index of the first axis, where there are several axes.
    """
    proto, weights = light_model(graph)
    ranks = {tensor.name: None if tensor.shape is None else len(tensor.shape) for tensor in graph.tensors().values()}
    wanted: list[str] = []
    for op in ("ReduceMin", "ReduceMax", "Size"):
        for name in names:
            wanted.append(f"{name}//{op}")
            rank = ranks.get(name) or 0
            inner = [_axes(proto, list(range(1, rank)))] if rank > 1 and op != "Size" else []
            node = helper.make_node(op, [name, *inner], [wanted[-1]])
            if op != "Size":
                node.attribute.append(helper.make_attribute("keepdims", 0))
            proto.graph.node.append(node)
    for name, axis in axes.items():
        wanted.append(f"{name}//rows")
        proto.graph.node.append(helper.make_node("ReduceMax", [name, _axes(proto, [axis])], [wanted[-1]], keepdims=0))
    return Runner(proto, wanted, weights=weights)


def _axes(proto: onnx.ModelProto, axes: Sequence[int]) -> str:
    """Name of an initializer that holds ``axes``."""
    name = "axes//" + ",".join(map(str, axes))
    if all(known.name != name for known in proto.graph.initializer):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(axes, np.int64), name))
    return name


def _smallest(known: tuple[float, float], maxima: NDArray[Any]) -> tuple[float, float]:
    """Smallest row maximum among rows that are not masked altogether, and among all finite ones."""
    finite = maxima[np.isfinite(maxima)]
    live = finite[finite > MASKED]
    return (min(known[0], float(live.min(initial=np.inf))), min(known[1], float(finite.min(initial=np.inf))))


def _finite_ranges(graph: Graph, names: Sequence[str], data: Iterable[Feed]) -> dict[str, Range]:
    """Ranges over the values below `HUGE` in magnitude: infinity has no place on a grid."""
    if not names:
        return {}
    runner = Runner(graph, names)
    found: dict[str, Range] = {}
    for feed in data:
        for name, values in runner.run(feed).items():
            finite = values[np.abs(values) < HUGE]
            if finite.size:
                seen = Range(float(finite.min()), float(finite.max()))
                found[name] = found[name].join(seen) if name in found else seen
    return {name: found.get(name, Range(0.0, 0.0)) for name in names}


def observe(
    graph: Graph,
    statistics: Statistics,
    data: Iterable[Feed],
    observer: ObserverName,
    floors: Mapping[str, float] | None = None,
) -> dict[str, Range]:
    """The range each tensor's grid should cover.

    Args:
        graph: the float graph that ``statistics`` came from.
        statistics: of the tensors in question.
        data: the same feeds again.
        observer: how to choose; "minmax" needs no second look at the feeds.
        floors: by tensor name, the value below which nothing matters.
    """
    floors = floors or {}
    ranges = {name: extent.clamp(floors.get(name, -np.inf)) for name, extent in statistics.ranges.items()}
    ranges.update(
        _finite_ranges(graph, [name for name, extent in ranges.items() if max(-extent.lo, extent.hi) >= HUGE], data)
    )
    if observer == "minmax":
        return ranges
    choose, found = OBSERVERS[observer], dict(ranges)
    for chunk in _chunks([name for name, extent in ranges.items() if extent.hi > extent.lo], statistics.elements):
        runner, histograms = Runner(graph, chunk), {name: Histogram.empty(ranges[name]) for name in chunk}
        for feed in data:
            for name, values in runner.run(feed).items():
                histograms[name].add(values)
        found.update({name: choose(histogram) for name, histogram in histograms.items()})
    return found


def _chunks(names: Sequence[str], elements: Mapping[str, int]) -> Iterable[list[str]]:
    """Consecutive names whose float32 values together stay within `CHUNK_BYTES`."""
    chunk: list[str] = []
    size = 0
    for name in names:
        bytes_needed = 4 * elements[name]
        if chunk and size + bytes_needed > CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(name)
        size += bytes_needed
    if chunk:
        yield chunk


def input_values(data: Iterable[Feed], names: Collection[str], most: int = 4) -> dict[str, set[float]]:
    """Different values of some inputs over all feeds; of one with more than ``most`` of them, some."""
    found: dict[str, set[float]] = {name: set() for name in names}
    for feed in data:
        for name, values in found.items():
            if name in feed and len(values) <= most:
                values.update(np.unique(feed[name])[: most + 1].astype(float).tolist())
    return found


def channel_means(
    graph: Graph, channels: Mapping[str, int | None], data: Iterable[Feed]
) -> dict[str, NDArray[np.float64]]:
    """Mean of each channel of some tensors over all feeds and positions; every feed counts by its number of elements.

    Args:
        graph: any graph onnxruntime can run.
        channels: by tensor name, the number of channels when they are the last axis,
        None when they are axis 1 (of at least three).
        data: feeds.
    """
    proto, weights = light_model(graph)
    for name, last in channels.items():
        shape, axes = ([0, 0, -1], [0, 2]) if last is None else ([-1, last], [0])
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(shape, np.int64), f"{name}//shape"))
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(axes, np.int64), f"{name}//axes"))
        proto.graph.node.append(helper.make_node("Reshape", [name, f"{name}//shape"], [f"{name}//rows"]))
        proto.graph.node.append(
            helper.make_node("ReduceMean", [f"{name}//rows", f"{name}//axes"], [f"{name}//mean"], keepdims=0)
        )
        proto.graph.node.append(helper.make_node("Size", [name], [f"{name}//size"]))
    runner = Runner(proto, [f"{name}//{what}" for name in channels for what in ("mean", "size")], weights=weights)
    sums: dict[str, NDArray[np.float64]] = {name: np.zeros(1) for name in channels}
    sizes = dict.fromkeys(channels, 0)
    for feed in data:
        values = runner.run(feed)
        for name in channels:
            size = int(values[f"{name}//size"])
            sums[name] = sums[name] + values[f"{name}//mean"].astype(np.float64) * size
            sizes[name] += size
    return {name: total / max(sizes[name], 1) for name, total in sums.items()}
