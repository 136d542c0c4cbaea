"""What the passes that choose grids share: a layer's weight as a matrix, and the moments of its inputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..calibration.gram import Moments, layer_inputs
from ..calibration.patches import as_matrix
from ..calibration.sources import synthetic_source
from ..grids import GridFamily, fit_scale
from ..ir import Graph
from ..layer_problem import LayerProblem, loss
from ..layers import Layer, find_layers, has_bias
from ..pass_base import Context

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Observed:
    """A layer with what is known of its inputs.

    Attributes:
        layer: of the graph.
        weight: float [G, R, K].
        fit, held: moments of its inputs, to fit on and held out; None without data.
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
        elif layer.values.dtype == np.float32:
            ctx.declined(layer.node, "the taps of a transposed convolution share a scale but not their inputs; it keeps 8 bits")
    if not weighted:
        yield from layers.values()
        return
    source = ctx.reference if ctx.reference is not None else graph
    data = ctx.data if ctx.data is not None else synthetic_source(graph, ctx)
    for inputs in layer_inputs(source, [layer for layer in find_layers(source) if layer.node.name in layers], data, seed=ctx.seed):
        found = layers[inputs.layer.node.name]
        yield Observed(found.layer, found.weight, inputs.fit, inputs.held)


def relative_loss(observed: Observed, family: GridFamily) -> float:
    """Error of the outputs with the nearest levels under the best scales, relative to their energy: on what was held out, or of the weights alone."""
    grid, weight = family.fit(observed.weight, observed.metric), observed.weight
    scale = fit_scale(grid, weight, observed.metric)
    spread = scale if grid.block is None else np.repeat(scale, grid.block, axis=2)[:, :, : weight.shape[2]]
    rounded = spread * grid.nearest(weight / spread).astype(np.float32)
    if observed.held is None:
        return float(np.sum((weight - rounded) ** 2, dtype=np.float64) / max(float(np.sum(weight**2, dtype=np.float64)), 1e-30))
    problem = LayerProblem(weight, observed.held.gram, observed.held.mean, grid, has_bias(observed.layer))
    return loss(problem, rounded) / max(loss(problem, np.zeros((1, 1, 1))), 1e-30)
