"""Puts weights on their grid with least change of each layer's outputs, by solving its layer problem.

A layer is fitted to the inputs that it has in the float model (``inputs=float``), or, layer after layer, to the inputs
that the quantized layers before it give (``inputs=quantized``); the second also corrects part of their error, see
`qcompiler.weights.retarget`. Convolutions gain by it. In MiniLM the error is the same and correlates less, and the few
matrix products of convolutional networks make no difference; ``inputs=mixed`` fits convolutions in turn and matrix
products to the float model.

Scales and levels are chosen with fast solver settings on four fifths of the calibration feeds. Where the choice is no
better than rounding to nearest on the held-out fifth, the layer is rounded to nearest. Otherwise it is solved at full
effort on all feeds. The bias, if any, takes the mean error.

The float constant behind a weight's Q/DQ pair becomes ``scale * level``, so that QuantizeLinear returns exactly the
chosen levels.

On a grid with blocks (``int4/64``) the scales of the blocks are chosen before the levels. Blocks run along the
reduction axis K, those of convolutions tap by tap. A layer has no blocks where K is no longer than one, or where it
loses less without them on the held-out fifth.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ...calibration.gate import HELD_FEEDS, take_if_better
from ...calibration.gram import layer_inputs
from ...calibration.paired import paired_inputs
from ...calibration.patches import as_matrix, from_matrix, products_of_row, taps_first
from ...errors import OptionError
from ...feeds.selection import held_feeds
from ...feeds.sources import feeds_of
from ...graph.ir import Feed, Graph, copy_of, names_in, spec_of
from ...graph.layers import (
    Layer,
    add_to_bias,
    bias_constant,
    bias_floor,
    find_layers,
    has_bias,
    set_weight,
    share_weight,
    weight_pair,
)
from ...grids import GridFamily, grid_named
from ...pass_base import Context, Pass
from ...solvers import SOLVERS
from ...solvers.base import rounded
from ...solvers.problem import Solution
from ...weights.saturation import UNLIMITED, pair_limit
from ...weights.shared_weights import SharedWeights
from ...weights.solve_alone import Solved, solve, task_of
from ...weights.solve_behind import solve_paired
from ...workers import open_executor

Array = NDArray[Any]
Layers = Mapping[str, Layer]

BLOCK_SOLVERS = ("nearest", "clip", "gptq", "beam", "descent")
"""Solvers that choose levels block by block."""


@dataclass(frozen=True)
class ReconstructLayers(Pass):
    """Weights on a grid, by the solver that loses least.

    Attributes:
        grid: grid of layers for which no pass has chosen one (``ctx.grids``); ``nf4/64`` has a factor for each block of
            64 products.
        solver: by name.
        inputs: whose inputs a layer is fitted to: the float model's, the quantized graph's, or ``mixed``: convolutions
            to the latter, matrix products to the former. Behind `match-batchnorm` always the float model's: what
            quantization does to made-up inputs says little of what it does to real ones.
        executor: where layers are solved (`qcompiler.workers.EXECUTORS`); the result is the same everywhere.
        longest: layers with more products in a row than this stay as they are; 0: none.
        memory: megabytes of moments to hold at once; less means more passes over the feeds. Layers fitted to quantized
            inputs come one at a time, anyway.
        mixup: layers behind quantized ones are fitted to mixtures of feeds, too (`qcompiler.feeds.mixup`).
        gated: the solutions stay only where, on feeds held out, they bring the outputs of the network closer than
            rounding to nearest does. At 8 bits rounding is a small part of the error, and the best layers by themselves
            may make a worse network.
        exact_pairs: only levels whose products `vpmaddubsw` sums exactly (`qcompiler.weights.saturation`), for runtimes
            that use it.
    """

    name: ClassVar[str] = "reconstruct-layers"
    grid: str = "int4"
    solver: str = "gptq"
    inputs: Literal["float", "quantized", "mixed"] = "float"
    executor: str = "serial"
    longest: int = 0
    memory: int = 1024
    mixup: bool = True
    gated: bool = False
    exact_pairs: bool = False

    def __post_init__(self) -> None:
        if self.longest < 0 or self.memory < 1:
            raise ValueError("longest must not be negative, memory at least 1")
        if self.inputs == "quantized" and self.executor != "serial":
            raise ValueError("with inputs=quantized each layer waits for those before it; leave executor out")
        family = grid_named(self.grid)
        if self.solver not in SOLVERS:
            raise OptionError(f"unknown solver '{self.solver}'; known: {', '.join(SOLVERS)}")
        self._checked(family)

    def _checked(self, family: GridFamily) -> GridFamily:
        if family.block is not None and self.solver not in BLOCK_SOLVERS:
            raise OptionError(
                f"solver '{self.solver}' knows no blocks; for '{family.name}/{family.block}' take one of "
                f"{', '.join(BLOCK_SOLVERS)}"
            )
        return family

    def _family(self, layers: Sequence[Layer], ctx: Context) -> GridFamily:
        """The grid of layers that share a weight."""
        family = self._checked(ctx.grids.get(layers[0].node.name, grid_named(self.grid)))
        return family.within(min(pair_limit(layer) for layer in layers) // 2) if self.exact_pairs else family

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Choose the weights; True when a layer with float weights behind a pair was given others."""
        if not self.gated:
            return self._solve_all(graph, ctx)
        solved, known = copy_of(graph), len(ctx.report.reconstructions)
        held = held_feeds(feeds_of(graph, ctx), HELD_FEEDS, ctx.seed)
        kept = self._solve_all(solved, ctx) and take_if_better(graph, solved, held, ctx)
        if not kept:  # the report tells of what is in the graph
            del ctx.report.reconstructions[known:]
        return kept

    def _solve_all(self, graph: Graph, ctx: Context) -> bool:
        layers = {
            layer.node.name: layer
            for layer in _solvable(graph, ctx)
            if not 0 < self.longest < products_of_row(layer)[1]
        }
        if not layers:
            return False
        source = ctx.reference if ctx.reference is not None else copy_of(graph)
        exact = {layer.node.name: layer for layer in find_layers(source) if layer.node.name in layers}
        data = feeds_of(graph, ctx)
        taken = names_in(graph)
        if self.exact_pairs:
            ctx.report.figures["avoid_saturation_layers"] = sum(
                pair_limit(layer) < UNLIMITED for layer in layers.values()
            )
        shared = SharedWeights.among(layer for name, layer in layers.items() if name in exact)
        for done, solved in enumerate(self._solved(source, graph, exact, layers, shared, data, ctx), 1):
            name = solved.record.node
            _apply([layers[other] for other in shared.readers(name)], solved, shared.means, taken)
            ctx.report.reconstructions.append(solved.record)
            ctx.on_step(done, len(exact))
        return True

    def _solved(
        self,
        source: Graph,
        graph: Graph,
        exact: Layers,
        layers: Layers,
        shared: SharedWeights,
        data: Iterable[Feed],
        ctx: Context,
    ) -> Iterator[Solved]:
        """Solutions of the layers in turn; with quantized inputs each is written to ``graph`` before the next.

        A weight that several layers share is one problem, with the inputs of all of them, and comes under the name of
        the first.
        """
        families = {name: self._family([layers[other] for other in shared.readers(name)], ctx) for name in layers}
        by_itself = {name for name in layers if len(shared.readers(name)) == 1}
        inputs = "float" if ctx.matched else self.inputs
        behind = {
            name
            for name in by_itself
            if inputs == "quantized" or (inputs == "mixed" and layers[name].node.op == "Conv")
        }
        alone = [layer for name, layer in exact.items() if name not in behind]
        moments = shared.merged(layer_inputs(source, alone, data, seed=ctx.seed, limit=self.memory << 20))
        tasks = (
            task_of(layers[name := item.layer.node.name], item, families[name], self.solver, ctx.seed)
            for item in moments
        )
        with open_executor(self.executor) as executor:
            yield from executor.map(solve, tasks)
        pairs = [(exact[name], layer) for name, layer in layers.items() if name in behind and name in exact]
        for paired in paired_inputs(source, graph, pairs, data, seed=ctx.seed, mixup=self.mixup):
            yield solve_paired(paired, families[paired.layer.node.name], self.solver, ctx.seed)


def _solvable(graph: Graph, ctx: Context) -> Iterator[Layer]:
    """Layers whose float weight passes through an int8 Q/DQ pair per channel."""
    for layer in find_layers(graph):
        spec = spec_of(layer.weight)
        if weight_pair(layer) is None or spec is None or spec.dtype != np.int8:
            continue
        if as_matrix(layer, layer.values) is None:
            ctx.declined(
                layer.node,
                "the taps of a transposed convolution share a scale but not their inputs; its "
                "weights are rounded to nearest",
            )
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


def _apply(layers: Sequence[Layer], solved: Solved, means: Mapping[str, Array], taken: set[str]) -> None:
    """Write a solution for all layers that share the weight, each bias corrected with its own inputs."""
    first, solution = layers[0], solved.solution
    floors = [floor for layer in layers if (floor := _floor(layer)) is not None]
    if floors:
        solution = _raised(solved, np.max(floors, axis=0))
    weight = solution.weight()
    if solved.problem.tables is not None:
        weight = weight[:, :, np.argsort(taps_first(first))]
    error = np.asarray(as_matrix(first, first.values), np.float64) - weight
    set_weight(first, from_matrix(first, weight), solution.scale, taken, solved.problem.grid.name)
    for layer in layers:
        if layer is not first:
            share_weight(layer, first)
        if has_bias(layer):
            own = means.get(layer.node.name)
            add_to_bias(layer, solved.shift if own is None else np.einsum("grk,gk->gr", error, own).reshape(-1), taken)


def _floor(layer: Layer) -> Array | None:
    bias, input_spec = bias_constant(layer), spec_of(layer.node.inputs[0])
    if bias is None or input_spec is None:
        return None
    return bias_floor(np.asarray(bias.values), float(input_spec.scale), layer.channels)
