"""Mean and deviation of every channel of the layers' outputs, in a graph whose layers can be scaled and shifted channel by channel.

Behind each layer (its bias included, its activation not) the measured copy of a graph computes ``y * gain + shift``; gains and shifts are
inputs, so one session answers for all of them, and computes no more of the graph than what is asked for needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.ir import Constant, Graph, Node, Variable, copy_of, replace_uses
from qcompiler.layers import Layer, find_layers
from qcompiler.pass_base import Feed
from qcompiler.runner import Runner

__all__ = ["AdjustableGraph", "ChannelStatistics"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class ChannelStatistics:
    """Mean and standard deviation of each channel over feeds and positions: float64 [C] both."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]


def channels_of(layer: Layer) -> int:
    """Output channels of a layer: those of its weight, times the groups of a ConvTranspose."""
    groups = int(layer.node.attrs.get("group", 1)) if layer.node.op == "ConvTranspose" else 1
    return layer.channels * groups


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
        outputs = [name for layer in found for name in _adjust(copy, layer)]
        self._runner = Runner(copy.toposort(), outputs)

    def statistics(self, layer: str, feeds: Iterable[Feed]) -> ChannelStatistics:
        """Statistics of one layer's output, every feed weighing as much as it has positions."""
        return self.all_statistics([layer], feeds)[layer]

    def all_statistics(self, layers: Sequence[str], feeds: Iterable[Feed]) -> dict[str, ChannelStatistics]:
        """Statistics of several layers' outputs."""
        settings = {_input(name, kind): values[name] for kind, values in (("gain", self.gain), ("shift", self.shift)) for name in values}
        outputs = [f"{name}//{kind}" for name in layers for kind in ("mean", "square", "size")]
        sums: dict[str, list[Array]] = {name: [np.zeros(1), np.zeros(1), np.zeros(1)] for name in layers}
        for feed in feeds:
            values = self._runner.run({**feed, **settings}, outputs)
            for name in layers:
                size = float(values[f"{name}//size"])
                parts = (values[f"{name}//mean"].astype(np.float64) * size, values[f"{name}//square"].astype(np.float64) * size, np.array(size))
                sums[name] = [total + part for total, part in zip(sums[name], parts, strict=True)]
        return {name: _moments(*total) for name, total in sums.items()}


def _moments(mean: Array, square: Array, size: Array) -> ChannelStatistics:
    average = mean / size
    with np.errstate(invalid="ignore"):  # moments beyond float32 are no numbers; `_adjustment` leaves such channels alone
        return ChannelStatistics(average, np.sqrt(np.maximum(square / size - average**2, 0.0)))


def _input(layer: str, kind: str) -> str:
    return f"{layer}//{kind}_in"


def _adjust(graph: Graph, layer: Layer) -> list[str]:
    """Put gain, shift and the measuring operators behind a layer; returns the names of its figures."""
    name, last = layer.node.name, layer.node if layer.bias_node is None else layer.bias_node
    y = last.outputs[0]
    spatial = layer.node.op in ("Conv", "ConvTranspose")
    rank = len(layer.values.shape) - 2 if spatial else 0
    inputs = [Variable(_input(name, kind), np.dtype(np.float32), [channels_of(layer)]) for kind in ("gain", "shift")]
    graph.inputs = [*graph.inputs, *inputs]
    shaped = inputs
    if rank:
        shape = Constant(f"{name}//shape", np.array([-1, *[1] * rank], np.int64))
        shaped = [Variable(f"{tensor.name}//shaped", np.dtype(np.float32)) for tensor in inputs]
        for tensor, flat in zip(shaped, inputs, strict=True):
            graph.nodes.append(Node("Reshape", tensor.name, {}, [flat, shape], [tensor]))
    scaled = Variable(f"{name}//scaled", np.dtype(np.float32), y.shape)
    adjusted = Variable(f"{name}//adjusted", np.dtype(np.float32), y.shape)
    replace_uses(graph, y, adjusted)
    graph.nodes.append(Node("Mul", scaled.name, {}, [y, shaped[0]], [scaled]))
    graph.nodes.append(Node("Add", adjusted.name, {}, [scaled, shaped[1]], [adjusted]))
    return _measure(graph, name, adjusted, spatial, channels_of(layer))


def _measure(graph: Graph, name: str, y: Variable, spatial: bool, channels: int) -> list[str]:
    """Mean, mean square and number of positions of each channel, as further tensors."""
    shape, axes = ([0, channels, -1], [0, 2]) if spatial else ([-1, channels], [0])
    rows, square = (Variable(f"{name}//{kind}", np.dtype(np.float32)) for kind in ("rows", "squared"))
    axis = Constant(f"{name}//axes", np.array(axes, np.int64))
    graph.nodes.append(Node("Reshape", rows.name, {}, [y, Constant(f"{name}//row_shape", np.array(shape, np.int64))], [rows]))
    graph.nodes.append(Node("Mul", square.name, {}, [rows, rows], [square]))
    for source, kind in ((rows, "mean"), (square, "square")):
        result = Variable(f"{name}//{kind}", np.dtype(np.float32))
        graph.nodes.append(Node("ReduceMean", result.name, {"keepdims": 0}, [source, axis], [result]))
        graph.outputs = [*graph.outputs, result]
    size = Variable(f"{name}//size", np.dtype(np.int64))
    graph.nodes.append(Node("Size", size.name, {}, [y], [size]))
    graph.outputs = [*graph.outputs, size]
    return [f"{name}//{kind}" for kind in ("mean", "square", "size")]


GAIN_LIMIT = 2.0
"""A deviation is not changed by more than this factor: beyond it the channel was lost to rounding and more gain is more noise."""


def match_channels(
    graph: Graph, reference: Graph, layers: Sequence[str], feeds: Sequence[Feed], *, deviations: bool,
    on_step: Callable[[int, int], None] = lambda _done, _total: None,
) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:  # fmt: skip
    """Gain and shift under which every channel of the layers' outputs has the mean, and the deviation, that it has in another graph.

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
        adjustable.gain[name], adjustable.shift[name] = _adjustment(expected[name], adjustable.statistics(name, feeds), deviations=deviations)
        on_step(done, len(layers))
    return {name: (adjustable.gain[name], adjustable.shift[name]) for name in layers}


def _adjustment(want: ChannelStatistics, have: ChannelStatistics, *, deviations: bool) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Gain and shift from one to the other; channels whose moments are beyond float32 are left alone."""
    known = np.isfinite(want.mean + want.deviation + have.mean + have.deviation)
    gain = np.ones_like(want.mean)
    if deviations:
        usable = known & (have.deviation > 0) & (want.deviation > 0)
        gain = np.clip(np.divide(want.deviation, have.deviation, out=gain, where=usable), 1 / GAIN_LIMIT, GAIN_LIMIT)
    shift = np.subtract(want.mean, have.mean * gain, out=np.zeros_like(gain), where=known)
    return gain.astype(np.float32), shift.astype(np.float32)
