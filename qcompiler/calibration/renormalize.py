"""Layers scaled and shifted so that, on feeds that are made up, their outputs have the statistics of training.

Made-up feeds drive a network off: each layer adds to it, and deep tensors have other means and deviations than on real
inputs. A BatchNormalization knows what training saw of its output: mean ``beta`` and deviation ``|gamma|`` per channel.
A layer whose output has mean ``m`` and deviation ``s`` on the feeds is given the gain ``|gamma| / s`` and the shift
``beta - gain m``, layer by layer, each measured behind those before it. Then every normalized tensor has the moments
that it has on real inputs, and what lies between has them nearly; no gradient is needed.

Gain and shift of a channel are undone by dividing weights, scales and bias: codes stay. So a graph may be quantized
under the statistics of training and be given its own function back (`match-batchnorm`, `unmatch-batchnorm`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.calibration.adjustment import channels_of
from qcompiler.calibration.prefix import Prefix
from qcompiler.graph.ir import Constant, Feed, Graph, Node, Variable, names_in, unique_name
from qcompiler.graph.layers import Layer, add_to_bias, find_layers, has_bias
from qcompiler.graph.runner import Runner
from qcompiler.pass_base import BatchNormStatistics

__all__ = ["Matched", "are_of_training", "match_statistics", "set_gain"]

Array = NDArray[Any]
Matched = dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
"""Gain and shift [C] that a layer was given, by name of its node."""

LEAST_GAIN, MOST_GAIN = 1 / 256, 16.0
"""Bounds of a gain: a channel that made-up feeds hardly move says little, and one that training put out stays small."""

FAR, MOST_FAR = 2.0, 0.25
"""A gain that is far from one, as a factor, and the share of channels that may need such a one. Measured with made-up
feeds: upper quartile of ``|log2 gain|`` .34 in the digits classifier, .43 in EfficientNet-Lite0, .56 and .19 in
PP-OCR's recognizer and classifier; 1.47 in a network of random weights and statistics.
"""


def are_of_training(matched: Matched) -> bool:
    """True when statistics and feeds are near enough to be of one network: few channels need a gain far from one.

    Else the statistics are no memory of training, or the made-up feeds are nothing like its inputs.
    """
    gains = np.concatenate([gain for gain, _ in matched.values()]) if matched else np.ones(1)
    return bool(np.mean(np.abs(np.log2(gains)) > np.log2(FAR)) <= MOST_FAR)


def match_statistics(
    graph: Graph, statistics: Mapping[str, BatchNormStatistics], data: Iterable[Feed], feeds: int
) -> Matched:
    """Give the layers that ``statistics`` (by tensor name) describe their means and deviations on ``data``, in place.

    Layers that share their weight with another one, and those without a place for a bias, stay as they are.
    """
    prefix, found, taken = Prefix(graph, data, feeds), Matched(), names_in(graph)
    for layer in [layer for layer in find_layers(graph) if _can_change(layer)]:
        want = statistics.get(_end(layer).name)
        if want is None or want.mean.size != channels_of(layer):
            continue
        mean, deviation = _moments(graph, layer, prefix)
        if not np.isfinite(mean + deviation).all():
            continue
        spread = np.sqrt(want.variance)
        gain = np.clip(spread / np.maximum(deviation, 1e-12), LEAST_GAIN, MOST_GAIN)
        found[layer.node.name] = (gain, want.mean - gain * mean)
        set_gain(layer, *found[layer.node.name], taken)
    return found


def set_gain(layer: Layer, gain: Array, shift: Array, taken: set[str]) -> None:
    """Make a layer with a constant float weight compute ``y * gain + shift``, channel by channel."""
    bias = 0.0 if layer.bias_node is None else np.asarray(layer.bias_node.inputs[layer.bias_slot].values, np.float64)
    shape = [1] * layer.values.ndim
    shape[layer.axis] = -1
    values = (layer.values * gain.reshape(shape)).astype(layer.values.dtype)
    add_to_bias(layer, (gain - 1) * np.reshape(bias, -1) + shift, taken)
    layer.node.inputs[1] = Constant(unique_name(taken, f"{layer.weight.name}_matched"), values)


def _can_change(layer: Layer) -> bool:
    """True for a layer whose weight is a constant that nobody else reads, with one output channel a row of it."""
    return (
        isinstance(layer.weight, Constant)
        and len(layer.weight.outputs) == 1
        and has_bias(layer)
        and channels_of(layer) == layer.channels
    )


def _end(layer: Layer) -> Variable:
    """What a layer gives, its bias included, its activation not."""
    output: Variable = (layer.bias_node or layer.node).outputs[0]
    return output


def _moments(graph: Graph, layer: Layer, prefix: Prefix) -> tuple[Array, Array]:
    """Mean and deviation of each channel of a layer's output over all feeds: float64 [C] both."""
    axis = 1 if layer.node.op in ("Conv", "ConvTranspose") else -1
    run, total, square, count = _single(graph, layer), np.zeros(1), np.zeros(1), 0
    for x in prefix.inputs_of(layer.node):
        y = np.moveaxis(run(x), axis, 0)
        rows = y.reshape(y.shape[0], -1).astype(np.float64)
        total, square, count = total + rows.sum(axis=1), square + np.square(rows).sum(axis=1), count + rows.shape[1]
    mean = total / max(count, 1)
    return mean, np.sqrt(np.maximum(square / max(count, 1) - mean**2, 0.0))


def _single(graph: Graph, layer: Layer) -> Any:
    """Runs a layer alone."""
    add = layer.bias_node if layer.bias_node is not layer.node else None
    nodes: list[Node] = [layer.node] if add is None else [layer.node, add]
    given, end = layer.node.inputs[0], _end(layer)
    runner = Runner(
        Graph(
            nodes, [Variable(given.name, np.dtype(np.float32))], [end], name="layer", opset=graph.opset,
            import_domains=graph.import_domains, ir_version=graph.ir_version,
        )
    )  # fmt: skip
    return lambda x: runner.run({given.name: x})[end.name]
