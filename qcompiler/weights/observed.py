"""What the passes that choose grids share: a layer's weight as a matrix, and the Gram matrix and mean of its inputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.calibration.gram import Moments, layer_inputs
from qcompiler.calibration.patches import as_matrix
from qcompiler.feeds.sources import feeds_of
from qcompiler.graph.ir import Graph, Node
from qcompiler.graph.layers import Layer, find_layers, has_bias, underlying_constant, weight_axis, weight_slots
from qcompiler.graph.operators import RECURRENT
from qcompiler.grids import Grid, GridFamily, fit_scale
from qcompiler.pass_base import Context
from qcompiler.solvers.problem import LayerProblem, relative_loss, spread_scale

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Observed:
    """A layer with what is known of its inputs.

    Attributes:
        layer: of the graph.
        weight: float [G, R, K].
        fit, held: Gram matrix and mean of its inputs, to fit on and held out; None without data.
    """

    layer: Layer
    weight: Array
    fit: Moments | None = None
    held: Moments | None = None

    @cached_property
    def metric(self) -> Array | None:
        """The matrix of the loss that is fitted to: float [G, K, K]."""
        if self.fit is None:
            return None
        mean = self.fit.mean if has_bias(self.layer) else np.zeros_like(self.fit.mean)
        return np.asarray(self.fit.gram - mean[:, :, None] * mean[:, None, :])


def observed_layers(graph: Graph, ctx: Context, *, weighted: bool) -> Iterator[Observed]:
    """The layers with float weights; the moments of their inputs come from the float model where it is known."""
    layers = {}
    for layer in find_layers(graph):
        matrix = as_matrix(layer, layer.values) if layer.values.dtype == np.float32 else None
        if matrix is not None:
            layers[layer.node.name] = Observed(layer, np.asarray(matrix))
    if not weighted:
        yield from layers.values()
        return
    source = ctx.reference if ctx.reference is not None else graph
    data = feeds_of(graph, ctx)
    for inputs in layer_inputs(
        source, [layer for layer in find_layers(source) if layer.node.name in layers], data, seed=ctx.seed
    ):
        found = layers[inputs.layer.node.name]
        yield Observed(found.layer, found.weight, inputs.fit, inputs.held)


def loose_weights(graph: Graph) -> Iterator[tuple[Node, list[Array]]]:
    """Nodes without a layer problem (LSTM, GRU, transposed convolutions) with their float weights as [1, C, K]."""
    for node in graph.nodes:
        slots = weight_slots(node) if node.op in (*RECURRENT, "ConvTranspose") else ()
        stored = [(slot, underlying_constant(node.inputs[slot])) for slot in slots]
        rows = [
            _rows(np.asarray(value.values), weight_axis(node, slot))
            for slot, value in stored
            if value is not None and value.dtype == np.float32
        ]
        if rows and len(rows) == len(slots):
            yield node, rows


def _rows(weight: Array, axis: int) -> Array:
    return np.moveaxis(weight, axis, 0).reshape(1, weight.shape[axis], -1)


def _rounded(weight: Array, family: GridFamily, metric: Array | None) -> tuple[Grid, Array]:
    """The grid of a weight [G, R, K], and its nearest levels under the best scales."""
    grid = family.fit(weight, metric)
    scale = fit_scale(grid, weight, metric)
    spread = spread_scale(scale, grid.block, weight.shape[2])
    return grid, spread * grid.nearest(weight / spread).astype(np.float32)


def weight_loss(weights: list[Array], family: GridFamily) -> float:
    """Squared error of weights on their nearest levels under the best scales, relative to their energy."""
    error = sum(
        float(np.sum((weight - _rounded(weight, family, None)[1]) ** 2, dtype=np.float64)) for weight in weights
    )
    return error / max(sum(float(np.sum(weight**2, dtype=np.float64)) for weight in weights), 1e-30)


def output_loss(observed: Observed, family: GridFamily) -> float:
    """Relative output error of nearest levels under the best scales, on held-out vectors, or of the weights alone."""
    if observed.held is None:
        return weight_loss([observed.weight], family)
    grid, rounded = _rounded(observed.weight, family, observed.metric)
    problem = LayerProblem(observed.weight, observed.held.gram, observed.held.mean, grid, has_bias(observed.layer))
    return relative_loss(problem, rounded)
