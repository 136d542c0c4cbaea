"""Puts the weights of every layer on a grid so that its outputs, not its weights, change least: the layer problem, by a solver of one's choice.

The moments of a layer's inputs come from the float model (``inputs=float``, every layer by itself) or from the graph as it is quantized so far
(``inputs=quantized``). A solver picks scales and levels on four fifths of the calibration feeds; on the fifth that it did not see, its choice
must beat plain rounding, else the layer is rounded to nearest. That decided, it solves the layer again on all feeds. Where the layer has a bias,
it takes back the mean error.

The float constant behind a weight's Q/DQ pair becomes ``scale * level``: QuantizeLinear gives back the very levels that were chosen.

On a grid with blocks (``int4/64``) the factors of a row's blocks are chosen first, then levels under them. Blocks run along the products of a row,
those of convolutions tap by tap; a row of no more products than a block is one without.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ..calibration.gram import LayerInputs, Moments, layer_inputs
from ..calibration.patches import as_matrix, from_matrix, products_of_row, taps_first
from ..calibration.sources import synthetic_source
from ..errors import OptionError
from ..executor import open_executor
from ..grids import GridFamily, grid_named
from ..ir import Graph, names_in, spec_of
from ..layer_problem import LayerProblem, Solution, mean_error, relative_loss
from ..layers import Layer, add_to_bias, bias_constant, find_layers, has_bias, set_weight, weight_pair
from ..pass_base import Context, Pass
from ..report.record import Reconstruction
from ..solvers import SOLVERS, Nearest, Solver
from ..solvers.base import rounded
from ..solvers.blocks import on_tables
from .quantize_weights import bias_floor

Array = NDArray[Any]

BLOCK_SOLVERS = ("nearest", "clip", "gptq", "beam", "descent")
"""Solvers that choose levels block by block."""


@dataclass(frozen=True)
class ReconstructLayers(Pass):
    """Weights on a grid, by the solver that loses least.

    Attributes:
        grid: grid of layers for which no pass has chosen one (``ctx.grids``); ``nf4/64`` has a scale for each block of 64 products.
        solver: by name.
        inputs: whose inputs a layer is fitted to: the float model's, or the quantized graph's.
        executor: where layers are solved (`qcompiler.executor.EXECUTORS`); the result is the same everywhere.
        longest: layers with more products in a row than this stay as they are; 0: none.
        memory: megabytes of moments to hold at once; less means more passes over the feeds.
    """

    name: ClassVar[str] = "reconstruct-layers"
    grid: str = "int4"
    solver: str = "gptq"
    inputs: Literal["float", "quantized"] = "float"
    executor: str = "serial"
    longest: int = 0
    memory: int = 1024

    def __post_init__(self) -> None:
        if self.longest < 0 or self.memory < 1:
            raise ValueError("longest must not be negative, memory at least 1")
        family = grid_named(self.grid)
        if self.solver not in SOLVERS:
            raise OptionError(f"unknown solver '{self.solver}'; known: {', '.join(SOLVERS)}")
        self._check_blocks(family)

    def _check_blocks(self, family: GridFamily) -> None:
        if family.block is not None and self.solver not in BLOCK_SOLVERS:
            raise OptionError(f"solver '{self.solver}' knows no blocks; for '{family.name}/{family.block}' take one of {', '.join(BLOCK_SOLVERS)}")

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Choose the weights; True when there was a layer with float weights behind a pair."""
        layers = {layer.node.name: layer for layer in _solvable(graph, ctx) if not 0 < self.longest < products_of_row(layer)[1]}
        if not layers:
            return False
        source = ctx.reference if self.inputs == "float" and ctx.reference is not None else graph
        observed = [layer for layer in find_layers(source) if layer.node.name in layers]
        data = ctx.data if ctx.data is not None else synthetic_source(graph, ctx)
        default, taken = grid_named(self.grid), names_in(graph)
        moments = layer_inputs(source, observed, data, seed=ctx.seed, limit=self.memory << 20)
        tasks = (self._task(layers[item.layer.node.name], item, ctx.grids.get(item.layer.node.name, default), ctx.seed) for item in moments)
        with open_executor(self.executor) as executor:
            for done, solved in enumerate(executor.map(solve, tasks), 1):
                _apply(layers[solved.record.node], solved, taken)
                ctx.report.reconstructions.append(solved.record)
                ctx.on_step(done, len(observed))
        return True

    def _task(self, layer: Layer, inputs: LayerInputs, family: GridFamily, seed: int) -> Task:
        weight = np.asarray(as_matrix(layer, layer.values))
        fit, held, every = inputs.fit, inputs.held, inputs.fit.with_those(inputs.held)
        if _has_blocks(family, weight):
            self._check_blocks(family)
            order = taps_first(layer)
            weight, (fit, held, every) = weight[:, :, order], (_reordered(moments, order) for moments in (fit, held, every))
        grid = family.fit(weight, every.gram)
        grid = grid if _has_blocks(grid, weight) else replace(grid, block=None)
        fit_on, held_out, whole = (LayerProblem(weight, side.gram, side.mean, grid, has_bias(layer)) for side in (fit, held, every))
        return Task(layer.node.name, fit_on, held_out, whole, self.solver, seed)


def _has_blocks(family: GridFamily, weight: Array) -> bool:
    return family.block is not None and family.block < weight.shape[2]


def _reordered(moments: Moments, order: NDArray[np.intp]) -> Moments:
    return Moments(moments.gram[:, order[:, None], order], moments.mean[:, order], moments.rows)


@dataclass(frozen=True, eq=False)
class Task:
    """A layer to solve: its problem on the moments to fit on, on those held out and on both together, the solver's name, the seed."""

    node: str
    fit: LayerProblem
    held: LayerProblem
    whole: LayerProblem
    solver: str
    seed: int


@dataclass(frozen=True, eq=False)
class Solved:
    """A layer's solution, the problem that it solves, what its bias must add [C], and how it came about."""

    solution: Solution
    problem: LayerProblem
    shift: Array
    record: Reconstruction


def solve(task: Task) -> Solved:
    """The solver's choice where it beats plain rounding on what it did not see, else that; without blocks where these do not lose less there."""
    solver, grid = SOLVERS[task.solver].tuned(task.fit, task.held), task.fit.grid
    plain, problem = _solution(Nearest(), task.fit, task.seed)
    grids = (grid,) if grid.block is None else (grid, replace(grid, block=None))
    tried = [_solution(solver, replace(task.fit, grid=each), task.seed)[0].weight() for each in grids]
    best = int(np.argmin([relative_loss(task.held, weight) for weight in tried]))
    (fit_before, fit_after), (held_before, held_after) = (
        [relative_loss(side, weight) for weight in (plain.weight(), tried[best])] for side in (task.fit, task.held)
    )
    solution, kept, used = plain, held_after <= held_before, grid
    if kept:
        used = grids[best]
        solution, problem = _solution(solver, replace(task.whole, grid=used), task.seed)
    label = used.name if used.block is None else f"{used.name}/{used.block}"
    record = Reconstruction(task.node, label, task.solver if kept else "nearest", fit_before, fit_after, held_before, held_after, kept)
    return Solved(solution, problem, mean_error(task.whole, solution.weight()).reshape(-1), record)


def _solution(solver: Solver, problem: LayerProblem, seed: int) -> tuple[Solution, LayerProblem]:
    """A solution with one scale a row, and the problem that it solves: on tables of levels where the grid has blocks."""
    if problem.grid.block is None:
        return solver.solve(problem, None, seed), problem
    placed, start = on_tables(problem, solver.importance(problem))
    return solver.solve(placed, start, seed), placed


def _solvable(graph: Graph, ctx: Context) -> Iterator[Layer]:
    """Layers whose float weight passes through an int8 Q/DQ pair per channel."""
    for layer in find_layers(graph):
        spec = spec_of(layer.weight)
        if weight_pair(layer) is None or spec is None or spec.dtype != np.int8:
            continue
        if as_matrix(layer, layer.values) is None:
            ctx.declined(layer.node, "the taps of a transposed convolution share a scale but not their inputs; its weights are rounded to nearest")
            continue
        yield layer


def _raised(solved: Solved, floor: Array) -> Solution:
    """The solution with scales of at least ``floor`` [C]; the rows that this concerns are rounded to nearest."""
    solution = solved.solution
    least = floor.reshape(solution.scale.shape[:2])[:, :, None].astype(np.float32)
    low = np.any(solution.scale < least, axis=2, keepdims=True)
    if not low.any():
        return solution
    scale = np.maximum(solution.scale, least)
    return Solution(np.where(low, rounded(solved.problem, scale).levels, solution.levels), scale)


def _apply(layer: Layer, solved: Solved, taken: set[str]) -> None:
    """Write a solution into the graph."""
    bias, input_spec, solution = bias_constant(layer), spec_of(layer.node.inputs[0]), solved.solution
    if bias is not None and input_spec is not None:
        solution = _raised(solved, bias_floor(np.asarray(bias.values), float(input_spec.scale), layer.channels))
    weight = solution.weight()
    if solved.problem.tables is not None:
        weight = weight[:, :, np.argsort(taps_first(layer))]
    set_weight(layer, from_matrix(layer, weight), solution.scale, taken, solved.problem.grid.name)
    if has_bias(layer):
        add_to_bias(layer, solved.shift, taken)
