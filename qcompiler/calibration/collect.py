"""What the calibration feeds do to the tensors of a float graph, in memory that does not grow with their number.

Ranges are reduced inside the graph itself; histograms take a second look at the feeds, a bounded number of tensors at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from qcompiler.calibration.observers import OBSERVERS, Histogram, ObserverName, Range
from qcompiler.errors import DataError
from qcompiler.graph.ir import Feed, Graph
from qcompiler.graph.runner import Runner, light_model

__all__ = ["Statistics", "channel_means", "collect_ranges", "input_values", "observe"]

CHUNK_BYTES = 256_000_000
"""Activations of one feed held at once while histograms are counted."""

HUGE = 1e30
"""Magnitude from which a value stands for infinity."""

MASKED = -130.0
"""A Softmax row whose largest logit is below this is a masked one, unless all are; the pass `clamp-attention-mask` leaves masks of -168."""


@dataclass
class Statistics:
    """What was seen.

    Attributes:
        ranges: by tensor name; infinite where a value was infinite or NaN.
        row_maxima: by name of a Softmax input, its smallest row maximum (rows that are masked altogether left out).
        elements: by tensor name, its largest number of elements.
        nan: names of tensors that held NaN.
        empty: names of tensors that had no element on some feed.
    """

    ranges: dict[str, Range]
    row_maxima: dict[str, float]
    elements: dict[str, int]
    nan: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)


def collect_ranges(graph: Graph, names: Sequence[str], data: Iterable[Feed], softmax_axes: Mapping[str, int] | None = None) -> Statistics:
    """Ranges of ``names`` over all feeds; ``softmax_axes`` maps the inputs of Softmax nodes to their axes.

    Raises:
        DataError: no feed at all.
    """
    axes = dict(softmax_axes or {})
    runner = _with_reductions(graph, names, axes)
    lows, highs, sizes = np.full(len(names), np.inf), np.full(len(names), -np.inf), np.zeros(len(names), np.int64)
    rows = dict.fromkeys(axes, (np.inf, np.inf))
    nan: set[str] = set()
    without_elements: set[str] = set()
    empty = True
    for feed in data:
        empty = False
        values = list(runner.run(feed).values())
        low, high, size = (np.array(values[k * len(names):(k + 1) * len(names)], np.float64).reshape(-1) for k in range(3))
        undefined = np.isnan(low) | np.isnan(high)
        nan.update(name for name, bad in zip(names, undefined, strict=True) if bad)
        without_elements.update(name for name, count in zip(names, size, strict=True) if count == 0)
        lows = np.minimum(lows, np.where(undefined, -np.inf, low))
        highs, sizes = np.maximum(highs, np.where(undefined, np.inf, high)), np.maximum(sizes, size.astype(np.int64))
        for name, maxima in zip(axes, values[3 * len(names):], strict=True):
            rows[name] = _smallest(rows[name], maxima)
    if empty:
        raise DataError("the calibration set is empty; give at least one feed")
    ranges = {name: Range(float(a), float(b)) if a <= b else Range(0.0, 0.0) for name, a, b in zip(names, lows, highs, strict=True)}
    row_maxima = {name: live if np.isfinite(live) else every for name, (live, every) in rows.items()}
    return Statistics(ranges, row_maxima, dict(zip(names, sizes.tolist(), strict=True)), sorted(nan), sorted(without_elements))


def _with_reductions(graph: Graph, names: Sequence[str], axes: Mapping[str, int]) -> Runner:
    """Runs the model with min, max and size of each tensor, and the row maxima of Softmax inputs, as further tensors."""
    proto, weights = light_model(graph)
    wanted: list[str] = []
    for op in ("ReduceMin", "ReduceMax", "Size"):
        for name in names:
            wanted.append(f"{name}//{op}")
            node = helper.make_node(op, [name], [wanted[-1]]) if op == "Size" else helper.make_node(op, [name], [wanted[-1]], keepdims=0)
            proto.graph.node.append(node)
    for name, axis in axes.items():
        wanted.append(f"{name}//rows")
        constant = onnx.numpy_helper.from_array(np.array([axis], np.int64), f"{name}//axis")
        proto.graph.initializer.append(constant)
        proto.graph.node.append(helper.make_node("ReduceMax", [name, constant.name], [wanted[-1]], keepdims=0))
    return Runner(proto, wanted, weights=weights)


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
    graph: Graph, statistics: Statistics, data: Iterable[Feed], observer: ObserverName, floors: Mapping[str, float] | None = None
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
    ranges.update(_finite_ranges(graph, [name for name, extent in ranges.items() if max(-extent.lo, extent.hi) >= HUGE], data))
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


def channel_means(graph: Graph, channels: Mapping[str, int | None], data: Iterable[Feed]) -> dict[str, NDArray[np.float64]]:
    """Mean of each channel of some tensors over all feeds and positions; every feed counts by its number of elements.

    Args:
        graph: any graph onnxruntime can run.
        channels: by tensor name, the number of channels when they are the last axis, None when they are axis 1 (of at least three).
        data: feeds.
    """
    proto, weights = light_model(graph)
    for name, last in channels.items():
        shape, axes = ([0, 0, -1], [0, 2]) if last is None else ([-1, last], [0])
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(shape, np.int64), f"{name}//shape"))
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(axes, np.int64), f"{name}//axes"))
        proto.graph.node.append(helper.make_node("Reshape", [name, f"{name}//shape"], [f"{name}//rows"]))
        proto.graph.node.append(helper.make_node("ReduceMean", [f"{name}//rows", f"{name}//axes"], [f"{name}//mean"], keepdims=0))
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
