"""What the network's outputs lose when the weights of one layer alone lie on a grid.

In a copy of the float graph weights and biases of some layers are inputs, so that one session answers for all their
grids. A layer with such a weight is slower than one with a constant (nothing is packed in advance), so a session has
few of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.calibration.gram import LayerInputs
from qcompiler.calibration.patches import as_matrix, from_matrix, taps_first
from qcompiler.graph.ir import Constant, Feed, Graph, Node, Variable, copy_of, names_in, unique_name
from qcompiler.graph.layers import Layer, add_to_bias, find_layers, has_bias
from qcompiler.graph.runner import Runner
from qcompiler.grids import GridFamily
from qcompiler.losses.network_loss import SQUARED, float_outputs
from qcompiler.losses.output_loss import OutputLoss
from qcompiler.solvers import Solver
from qcompiler.solvers.block_factors import on_tables
from qcompiler.solvers.problem import LayerProblem, mean_error

__all__ = ["BATCH", "OutputErrors", "RoundedWeight", "round_weight", "with_weights"]

BATCH = 8
"""Layers whose weights are inputs of one session."""

FITTED = 1 << 18
"""Most weights that the levels of a grid are fitted to: whole rows, evenly spread."""

SKETCH = 2048
"""Length of the random sketch of a feed's output error."""

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class RoundedWeight:
    """A layer's weight on a grid.

    Attributes:
        levels: int8 [G, R, K].
        scale: float32 [G, R, 1].
        block: weights along K that share a codebook; None: one codebook for all.
        shift: float32 [C], what the bias takes back; None: the layer has no bias.
        distinct: number of levels of its grid, or of a table.
    """

    levels: NDArray[np.int8]
    scale: NDArray[np.float32]
    block: int | None
    shift: NDArray[np.float32] | None
    distinct: int

    def values(self, layer: Layer) -> Array:
        """The weight in the layer's own shape, float32."""
        return np.ascontiguousarray(from_matrix(layer, self.scale * self.levels.astype(np.float32)))


def round_weight(inputs: LayerInputs, family: GridFamily, solver: Solver, seed: int) -> RoundedWeight:
    """A layer's weight (see `as_matrix`) put on a grid by a solver, with the mean error taken out of the bias.

    Blocks run tap by tap, and a row of no more products than a block has none, as `reconstruct-layers` has it.
    """
    layer, fit, held = inputs.layer, inputs.fit, inputs.held
    weight = np.asarray(as_matrix(layer, layer.values))
    order = np.arange(weight.shape[2])
    if family.block is not None and family.block < weight.shape[2]:
        order = taps_first(layer)
        weight, fit, held = weight[:, :, order], fit.reordered(order), held.reordered(order)
    every = fit.with_those(held)
    grid = family.fit(weight[:, :: -(-weight.size // FITTED)], every.gram)
    block = grid.block if grid.block is not None and grid.block < weight.shape[2] else None
    grid = replace(grid, block=block)
    seen, unseen, problem = (
        LayerProblem(weight, side.gram, side.mean, grid, has_bias(layer)) for side in (fit, held, every)
    )
    tuned = solver.tuned(seen, unseen)
    placed, start = (problem, None) if block is None else on_tables(problem, tuned.importance(problem))
    solution = tuned.solve(placed, start, seed)
    shift = mean_error(placed, solution.weight()).reshape(-1).astype(np.float32) if has_bias(layer) else None
    levels = solution.levels.astype(np.int8)[:, :, np.argsort(order)]
    return RoundedWeight(levels, solution.scale, block, shift, len(grid.levels))


def with_weights(graph: Graph, chosen: Mapping[str, RoundedWeight]) -> Graph:
    """A copy of a float graph with the weights of some layers, by name of the node, on their grids."""
    copy = copy_of(graph)
    taken = names_in(copy)
    for layer in list(find_layers(copy)):
        weight = chosen.get(layer.node.name)
        if weight is None:
            continue
        if weight.shift is not None:
            add_to_bias(layer, weight.shift, taken)
        layer.node.inputs[1] = Constant(unique_name(taken, f"{layer.weight.name}_rounded"), weight.values(layer))
    return copy


class OutputErrors:
    """Errors of a float graph's float outputs under changed weights.

    Args:
        graph: the float graph.
        feeds: what to compare on.
        seed: of the folding.
        loss: of one output; by default its squared error over its energy.
    """

    def __init__(self, graph: Graph, feeds: Sequence[Feed], seed: int = 0, loss: OutputLoss = SQUARED) -> None:
        self._graph, self._feeds, self._seed, self._loss = graph, feeds, seed, loss
        runner = Runner(graph)
        self._expected = [float_outputs(runner.run(feed)) for feed in feeds]

    def measure(self, options: Mapping[str, Sequence[RoundedWeight]]) -> dict[str, tuple[list[float], Array]]:
        """Switch each layer, alone, to each of its options.

        Args:
            options: by name of a layer's node; at most `BATCH` layers are a good number.

        Returns:
            by name: the losses, averaged over outputs and feeds, and the error of the outputs, folded to
            vectors float32 [options, S] whose products are those of the errors,
            up to a few percent: ``|error|²`` is the loss.
        """
        switchable = _SwitchableGraph(self._graph, list(options))
        result = {}
        for name, weights in options.items():
            found = [self._errors(switchable, name, weight) for weight in weights]
            result[name] = ([loss for loss, _ in found], np.stack([error for _, error in found]))
        return result

    def _errors(self, switchable: _SwitchableGraph, name: str, weight: RoundedWeight) -> tuple[float, Array]:
        settings, total, folded = switchable.settings(name, weight), 0.0, []
        for feed, expected in zip(self._feeds, self._expected, strict=True):
            got = float_outputs(switchable.run(feed, settings))
            share = np.sqrt(max(len(expected), 1) * len(self._feeds))
            parts = [self._loss.error(value, want) / share for value, want in zip(got, expected, strict=True)]
            error = np.concatenate([np.zeros(0), *parts])
            total += float(np.square(error).sum())
            folded.append(_folded(error, self._seed))
        return total, np.concatenate(folded).astype(np.float32)


def _folded(values: Array, seed: int) -> Array:
    """Random sketch: each value, randomly signed, added to one of `SKETCH` places; keeps inner products on average."""
    if len(values) <= SKETCH:
        return values
    rng = np.random.default_rng([seed, len(values)])
    places, signs = rng.integers(0, SKETCH, len(values)), rng.choice(np.array([-1.0, 1.0]), len(values))
    return np.bincount(places, values * signs, SKETCH)


class _SwitchableGraph:
    """A float graph in which weights and biases of some layers are inputs."""

    def __init__(self, graph: Graph, names: Sequence[str]) -> None:
        copy = copy_of(graph)
        taken, wanted = names_in(copy), set(names)
        self._defaults: dict[str, Array] = {}
        self._slots: dict[str, tuple[Layer, str, str | None]] = {}
        for layer in [layer for layer in find_layers(copy) if layer.node.name in wanted and has_bias(layer)]:
            add_to_bias(layer, np.zeros(layer.channels), taken)  # so that each has a bias of full length
        for layer in [layer for layer in find_layers(copy) if layer.node.name in wanted]:
            bias = (
                self._open(copy, layer.bias_node, layer.bias_slot, taken)
                if layer.bias_node is not None and has_bias(layer)
                else None
            )
            self._slots[layer.node.name] = (layer, self._open(copy, layer.node, 1, taken), bias)
        self._runner = Runner(copy)

    def _open(self, graph: Graph, node: Node, slot: int, taken: set[str]) -> str:
        """Make a constant operand an input of the graph; gives its name."""
        constant = node.inputs[slot]
        values = np.ascontiguousarray(constant.values)
        variable = Variable(unique_name(taken, f"{constant.name}_input"), values.dtype, list(values.shape))
        node.inputs[slot] = variable
        graph.inputs = [*graph.inputs, variable]
        self._defaults[variable.name] = values
        return str(variable.name)

    def settings(self, name: str, chosen: RoundedWeight) -> dict[str, Array]:
        """Inputs under which one layer has another weight, and the others their own."""
        layer, weight, bias = self._slots[name]
        changed = {weight: chosen.values(layer)}
        if bias is not None and chosen.shift is not None:
            changed[bias] = self._defaults[bias] + chosen.shift
        return {**self._defaults, **changed}

    def run(self, feed: Feed, settings: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs for one feed."""
        return self._runner.run({**feed, **settings})

