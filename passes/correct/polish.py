"""Gradient-free fine-tuning of scales and biases towards the float model's outputs, by forward runs alone.

Parameters are the logarithm of a gain for each layer (its weights' scales and its bias grow together, the codes stay)
and, where wished, a shift for each output channel and the logarithms of the scales of 8-bit activations (one for all
that share a grid). SPSA estimates the gradient of the outputs' error from the error at pairs of random perturbations.
The result is kept only where feeds that it did not see agree.

Narrower ranges of activations fit any few feeds better and clip what other feeds hold: with 16 feeds of
EfficientNet-Lite0 the error on others grew by half. They are for those with many feeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ...calibration.gate import take_if_better
from ...calibration.spsa import Spsa
from ...calibration.tunable_graph import Settings, TunableGraph, scale_units, scales_of, set_scales
from ...feeds.selection import split_feeds
from ...feeds.sources import feeds_of
from ...graph.ir import Graph, copy_of, names_in
from ...graph.layers import Layer, find_layers
from ...losses.network_loss import NetworkLoss
from ...pass_base import Context, Pass
from .tune_statistics import apply_tuning, tunable

Vector = NDArray[np.float64]

GAIN_UNIT = 0.05
"""What a parameter of 1 adds to the logarithm of a gain. All later layers see a gain, few values of a tensor a scale:
on EfficientNet-Lite0 gains off by 10 % cost a hundred times the error of 8 bits, scales off by as much nothing to
speak of.
"""


@dataclass(frozen=True)
class _Parameters:
    """Layout of the parameter vector: log-scales, log-gains in `GAIN_UNIT`, shifts in each channel's ``unit``."""

    scales: NDArray[np.float32]
    units: Sequence[NDArray[np.float64]]
    shifts: bool

    @property
    def length(self) -> int:
        """Number of parameters."""
        return len(self.scales) + len(self.units) + (sum(map(len, self.units)) if self.shifts else 0)

    def settings(self, vector: Vector) -> Settings:
        """What a vector stands for; that of zeros is the graph as it is."""
        first, second = len(self.scales), len(self.scales) + len(self.units)
        scales = (self.scales * np.exp(vector[:first])).astype(np.float32)
        gains = np.exp(GAIN_UNIT * vector[first:second]).astype(np.float32)
        if not self.shifts:
            return Settings(scales, gains)
        parts = np.split(vector[second:], np.cumsum([len(unit) for unit in self.units])[:-1])
        return Settings(
            scales,
            gains,
            [(GAIN_UNIT * part * unit).astype(np.float32) for part, unit in zip(parts, self.units, strict=True)],
        )


@dataclass(frozen=True)
class Polish(Pass):
    """Scales, gains and shifts of least output error, by SPSA.

    Attributes:
        steps: of the descent; each runs the feeds ``2 * directions + 1`` times.
        directions: perturbations averaged in a step.
        radius: of the perturbations of the logarithm of a scale.
        shifts: move biases, too, channel by channel.
        ranges: move scales of activations, too.
        feeds: how many to fit to.
    """

    name: ClassVar[str] = "polish"
    steps: int = 20
    directions: int = 4
    radius: float = 0.05
    shifts: bool = False
    ranges: bool = False
    feeds: int = 16

    def __post_init__(self) -> None:
        if min(self.steps, self.directions, self.feeds) < 1 or self.radius <= 0:
            raise ValueError("steps, directions, feeds and radius must be positive")

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Tune; True when that brought the outputs closer to the float model's on feeds held out."""
        layers, units = tunable(graph, ctx), scale_units(graph) if self.ranges else []
        if ctx.reference is None or not (layers or units):
            return False
        data = feeds_of(graph, ctx)
        fit, held = split_feeds(data, self.feeds, ctx.seed)
        parameters = _Parameters(scales_of(units), [_unit(layer) for layer in layers], self.shifts)
        names = [layer.node.name for layer in layers]
        error, tunable_graph = NetworkLoss(ctx.reference, fit), TunableGraph(graph, names, ranges=self.ranges)

        def loss(vector: Vector) -> float:
            settings = parameters.settings(vector)
            return error.of(lambda feed: tunable_graph.run(feed, settings))

        search = Spsa(self.steps, self.directions, self.radius)
        best, _, _ = search.minimize(loss, np.zeros(parameters.length), ctx.seed, ctx.on_step)
        polished = copy_of(graph)
        _apply(polished, names, parameters.settings(best))
        return take_if_better(graph, polished, held, ctx)


def _unit(layer: Layer) -> NDArray[np.float64]:
    """What a shift of 1 is for each output channel: the norm of its weights, float64 [C]."""
    values = np.moveaxis(np.asarray(layer.values, np.float64), layer.axis, 0)
    return np.asarray(np.sqrt(np.square(values).reshape(len(values), -1).sum(axis=1)))


def _apply(graph: Graph, names: Sequence[str], settings: Settings) -> None:
    """Write settings into the graph."""
    if len(settings.scales):
        set_scales(graph, settings.scales)
    taken, layers = names_in(graph), {layer.node.name: layer for layer in find_layers(graph)}
    shifts = settings.shifts or [np.zeros(layers[name].channels, np.float32) for name in names]
    for name, gain, shift in zip(names, settings.gains, shifts, strict=True):
        if gain != 1 or shift.any():
            apply_tuning(layers[name], np.full(layers[name].channels, gain, np.float32), shift, taken)
