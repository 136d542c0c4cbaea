"""Puts the weights of every layer on a grid so that its outputs, not its weights, change least: the layer problem, by a solver of one's choice.

The moments of a layer's inputs come from the float model (``inputs=float``, every layer by itself) or from the graph as it is quantized so far
(``inputs=quantized``). A solver picks scales and levels on four fifths of the calibration feeds; on the fifth that it did not see, its choice
must beat plain rounding, else the layer is rounded to nearest. Where the layer has a bias, it takes back the mean error.

The float constant behind a weight's Q/DQ pair becomes ``scale * level``: QuantizeLinear gives back the very levels that were chosen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ..calibration.gram import LayerInputs, layer_inputs
from ..calibration.patches import as_matrix, from_matrix
from ..calibration.sources import synthetic_source
from ..errors import OptionError
from ..grids import GridFamily, grid_named
from ..ir import Constant, Graph, names_in, producer, quantized_source, spec_of, unique_name
from ..layer_problem import LayerProblem, Solution, loss, mean_error
from ..layers import Layer, add_to_bias, bias_constant, find_layers, has_bias, set_weight_scale
from ..pass_base import Context, Pass
from ..report.record import Reconstruction
from ..solvers import SOLVERS, Nearest
from .quantize_weights import bias_floor

Array = NDArray[Any]


@dataclass(frozen=True)
class ReconstructLayers(Pass):
    """Weights on a grid, by the solver that loses least.

    Attributes:
        grid: grid of layers for which no pass has chosen one (``ctx.grids``).
        solver: by name.
        inputs: whose inputs a layer is fitted to: the float model's, or the quantized graph's.
    """

    name: ClassVar[str] = "reconstruct-layers"
    grid: str = "int4"
    solver: str = "gptq"
    inputs: Literal["float", "quantized"] = "float"

    def __post_init__(self) -> None:
        grid_named(self.grid)
        if self.solver not in SOLVERS:
            raise OptionError(f"unknown solver '{self.solver}'; known: {', '.join(SOLVERS)}")

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Choose the weights; True when there was a layer with float weights behind a pair."""
        layers = {layer.node.name: layer for layer in _solvable(graph, ctx)}
        if not layers:
            return False
        source = ctx.reference if self.inputs == "float" and ctx.reference is not None else graph
        observed = [layer for layer in find_layers(source) if layer.node.name in layers]
        data = ctx.data if ctx.data is not None else synthetic_source(graph, ctx)
        default, taken = grid_named(self.grid), names_in(graph)
        for inputs in layer_inputs(source, observed, data, seed=ctx.seed):
            name = inputs.layer.node.name
            record = self._solve(layers[name], inputs, ctx.grids.get(name, default), ctx.seed, taken)
            ctx.report.reconstructions.append(record)
        return True

    def _solve(self, layer: Layer, inputs: LayerInputs, family: GridFamily, seed: int, taken: set[str]) -> Reconstruction:
        """Give a layer the solver's choice where it beats plain rounding on what it did not see, else that."""
        problem, held = _problems(layer, inputs, family)
        plain, tuned = Nearest().solve(problem, None, seed), SOLVERS[self.solver].solve(problem, None, seed)
        weights = [solution.weight(problem.grid.block) for solution in (plain, tuned)]
        (fit_before, fit_after), (held_before, held_after) = ([loss(side, w) / _energy(side) for w in weights] for side in (problem, held))
        kept = held_after <= held_before
        _apply(layer, problem, tuned if kept else plain, taken)
        solver = self.solver if kept else "nearest"
        return Reconstruction(layer.node.name, problem.grid.name, solver, fit_before, fit_after, held_before, held_after, kept)


def _solvable(graph: Graph, ctx: Context) -> Iterator[Layer]:
    """Layers whose float weight passes through an int8 Q/DQ pair per channel."""
    for layer in find_layers(graph):
        codes, spec = quantized_source(layer.weight), spec_of(layer.weight)
        if codes is None or isinstance(codes, Constant) or spec is None or spec.dtype != np.int8 or layer.values.dtype != np.float32:
            continue
        if as_matrix(layer, layer.values) is None:
            ctx.declined(layer.node, "the taps of a transposed convolution share a scale but not their inputs; its weights are rounded to nearest")
            continue
        yield layer


def _problems(layer: Layer, inputs: LayerInputs, family: GridFamily) -> tuple[LayerProblem, LayerProblem]:
    """The layer problem on the moments to fit on, and on those held out."""
    weight = np.asarray(as_matrix(layer, layer.values))
    corrects_mean = has_bias(layer)
    grid = family.fit(weight, inputs.fit.gram)
    fit, held = (LayerProblem(weight, side.gram, side.mean, grid, corrects_mean) for side in (inputs.fit, inputs.held))
    return fit, held


def _energy(problem: LayerProblem) -> float:
    """Mean square of the layer's outputs, without their mean where a bias holds it."""
    return max(loss(problem, np.zeros((1, 1, 1))), 1e-30)


def _raised(problem: LayerProblem, solution: Solution, floor: Array) -> Solution:
    """A solution whose scales are at least ``floor`` [C]; the rows that this concerns are rounded to nearest."""
    least = floor.reshape(solution.scale.shape[:2])[:, :, None].astype(np.float32)
    low = (solution.scale < least).any(axis=2)
    if not low.any():
        return solution
    scale = np.maximum(solution.scale, least)
    rounded = problem.grid.nearest(problem.weight / scale)
    return Solution(np.where(low[:, :, None], rounded, solution.levels), scale)


def _apply(layer: Layer, problem: LayerProblem, solution: Solution, taken: set[str]) -> None:
    """Write a solution into the graph."""
    spec, input_spec, dequantize = spec_of(layer.weight), spec_of(layer.node.inputs[0]), producer(layer.weight)
    quantize = None if dequantize is None else producer(dequantize.inputs[0])
    if spec is None or quantize is None:
        return
    bias = bias_constant(layer)
    if bias is not None and input_spec is not None:
        solution = _raised(problem, solution, bias_floor(np.asarray(bias.values), float(input_spec.scale), layer.channels))
    values = solution.weight(problem.grid.block)
    stored = quantize.inputs[0]
    quantize.inputs[0] = Constant(unique_name(taken, f"{stored.name}_{problem.grid.name}"), np.ascontiguousarray(from_matrix(layer, values)))
    set_weight_scale(layer, solution.scale.reshape(spec.scale.shape), taken)
    if has_bias(layer):
        add_to_bias(layer, mean_error(problem, values).reshape(-1), taken)
