"""Per-channel mean and deviation of the layers' outputs, in a graph with per-channel gains and shifts as inputs.

Gains and shifts are inputs of the measured copy of a graph (`adjustment`), so one session answers for all of them, and
computes no more of the graph than what is asked for needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.calibration.adjustment import adjust, channels_of
from qcompiler.graph.ir import Constant, Feed, Graph, Node, Variable, copy_of, names_in
from qcompiler.graph.layers import Layer, find_layers
from qcompiler.graph.runner import Runner

__all__ = ["AdjustableGraph", "ChannelStatistics", "match_channels"]

Array = NDArray[Any]

GAIN_LIMIT = 2.0
"""Largest factor by which a deviation is changed: beyond it the channel was lost to rounding and gain adds noise only.
"""


@dataclass(frozen=True, eq=False)
class ChannelStatistics:
    """Mean and standard deviation of each channel over feeds and positions: float64 [C] both."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]


class AdjustableGraph:
    """A graph whose layers take a gain and a shift.

    Attributes:
        gain, shift: by name of a layer's node, float32 [C]; change them as you like.
    """

    def __init__(self, graph: Graph, layers: Sequence[str]) -> None:
        copy = copy_of(graph)
        wanted = set(layers)
        found = [layer for layer in find_layers(copy) if layer.node.name in wanted]
        self.gain = {layer.node.name: np.ones(channels_of(layer), np.float32) for layer in found}
        self.shift = {layer.node.name: np.zeros(channels_of(layer), np.float32) for layer in found}
        taken = names_in(copy)
        self._adjustments = {layer.node.name: adjust(copy, layer, taken) for layer in found}
        outputs = [name for layer in found for name in _measure(copy, layer, self._adjustments[layer.node.name].result)]
        self._runner = Runner(copy.toposort(), outputs)

    def statistics(self, layer: str, feeds: Iterable[Feed]) -> ChannelStatistics:
        """Statistics of one layer's output, every feed weighing as much as it has positions."""
        return self.all_statistics([layer], feeds)[layer]

    def all_statistics(self, layers: Sequence[str], feeds: Iterable[Feed]) -> dict[str, ChannelStatistics]:
        """Statistics of several layers' outputs."""
        settings: dict[str, Array] = {}
        for name, adjustment in self._adjustments.items():
            settings.update(adjustment.feed(self.gain[name], self.shift[name]))
        outputs = [f"{name}//{kind}" for name in layers for kind in ("mean", "square", "size")]
        sums: dict[str, list[Array]] = {name: [np.zeros(1), np.zeros(1), np.zeros(1)] for name in layers}
        for feed in feeds:
            values = self._runner.run({**feed, **settings}, outputs)
            for name in layers:
                size = float(values[f"{name}//size"])
                parts = (
                    values[f"{name}//mean"].astype(np.float64) * size,
                    values[f"{name}//square"].astype(np.float64) * size,
                    np.array(size),
                )
                sums[name] = [total + part for total, part in zip(sums[name], parts, strict=True)]
        return {name: _moments(*total) for name, total in sums.items()}


def _moments(mean: Array, square: Array, size: Array) -> ChannelStatistics:
    average = mean / size
    # moments beyond float32 are no numbers; `_adjustment` leaves such channels alone
    with np.errstate(invalid="ignore"):
        return ChannelStatistics(average, np.sqrt(np.maximum(square / size - average**2, 0.0)))


def _measure(graph: Graph, layer: Layer, y: Variable) -> list[str]:
    """Mean, mean square and number of positions of each channel of ``y``, as further tensors; their names."""
    name, channels = layer.node.name, channels_of(layer)
    shape, axes = ([0, channels, -1], [0, 2]) if layer.node.op in ("Conv", "ConvTranspose") else ([-1, channels], [0])
    rows, square = (Variable(f"{name}//{kind}", np.dtype(np.float32)) for kind in ("rows", "squared"))
    axis = Constant(f"{name}//axes", np.array(axes, np.int64))
    graph.nodes.append(
        Node("Reshape", rows.name, {}, [y, Constant(f"{name}//row_shape", np.array(shape, np.int64))], [rows])
    )
    graph.nodes.append(Node("Mul", square.name, {}, [rows, rows], [square]))
    for source, kind in ((rows, "mean"), (square, "square")):
        result = Variable(f"{name}//{kind}", np.dtype(np.float32))
        graph.nodes.append(Node("ReduceMean", result.name, {"keepdims": 0}, [source, axis], [result]))
        graph.outputs = [*graph.outputs, result]
    size = Variable(f"{name}//size", np.dtype(np.int64))
    graph.nodes.append(Node("Size", size.name, {}, [y], [size]))
    graph.outputs = [*graph.outputs, size]
    return [f"{name}//{kind}" for kind in ("mean", "square", "size")]


def match_channels(
    graph: Graph, reference: Graph, layers: Sequence[str], feeds: Sequence[Feed], *, deviations: bool,
    on_step: Callable[[int, int], None] = lambda _done, _total: None,
) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:  # fmt: skip
    """Gains and shifts that give each channel of the layers' outputs the mean and deviation of another graph.

    Layer by layer in graph order: each is measured behind those already adjusted.

    Args:
        graph: with Q/DQ pairs.
        reference: the float graph, with nodes of the same names.
        layers: names of the layers' nodes, in graph order.
        feeds: what to measure on.
        deviations: match the deviations, too; else every gain is 1.
        on_step: called with (layers done, all layers).

    Returns:
        by name of a layer's node: gain and shift, float32 [C].
    """
    expected = AdjustableGraph(reference, layers).all_statistics(layers, feeds)
    adjustable = AdjustableGraph(graph, layers)
    for done, name in enumerate(layers, 1):
        adjustable.gain[name], adjustable.shift[name] = _adjustment(
            expected[name], adjustable.statistics(name, feeds), deviations=deviations
        )
        on_step(done, len(layers))
    return {name: (adjustable.gain[name], adjustable.shift[name]) for name in layers}


def _adjustment(
    want: ChannelStatistics, have: ChannelStatistics, *, deviations: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Gain and shift from one to the other; channels whose moments are beyond float32 are left alone."""
    known = np.isfinite(want.mean + want.deviation + have.mean + have.deviation)
    gain = np.ones_like(want.mean)
    if deviations:
        usable = known & (have.deviation > 0) & (want.deviation > 0)
        gain = np.clip(np.divide(want.deviation, have.deviation, out=gain, where=usable), 1 / GAIN_LIMIT, GAIN_LIMIT)
    shift = np.subtract(want.mean, have.mean * gain, out=np.zeros_like(gain), where=known)
    return gain.astype(np.float32), shift.astype(np.float32)
