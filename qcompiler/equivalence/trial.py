"""Measures what a diagonal transform of a region does to the outputs of the network, without applying it.

A copy of the float graph gets, at every tensor of the region that will have a grid, ``x -> s Q(x / s)``, and its readers the weights
``Q(W s) / s``. All else stays float, so what the outputs err by is the noise of this region alone. The grids cover what some feeds showed; the
noise is measured on others, so a transform that leaves no room for unseen values is found out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.calibration.observers import Range, affine_grid
from qcompiler.equivalence.fold import spread_of
from qcompiler.equivalence.matrices import columns_of, rows_of, weight_of_rows, with_columns
from qcompiler.equivalence.noise import Levels, RegionNoise, grid_range
from qcompiler.equivalence.regions import Place
from qcompiler.ir import Constant, Graph, Node, Variable, constant_of, copy_of, names_in, replace_uses, unique_name
from qcompiler.pass_base import Feed
from qcompiler.runner import Runner

__all__ = ["Trial"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Trial:
    """A float graph, feeds, and its outputs for them."""

    graph: Graph
    feeds: Sequence[Feed]
    expected: Sequence[Mapping[str, Array]]

    @staticmethod
    def on(graph: Graph, feeds: Sequence[Feed]) -> Trial:
        """Run the float graph once."""
        runner = Runner(graph)
        return Trial(graph, feeds, [runner.run(feed) for feed in feeds])

    def noise(self, region: RegionNoise, divisors: Array, levels: Levels) -> float:
        """Noise of the outputs relative to their energy, summed over outputs, with the region's classes divided by ``divisors``."""
        copy = copy_of(self.graph)
        places = {id(node): index for index, node in enumerate(self.graph.nodes)}
        tensors = {tensor.name: tensor for node in copy.nodes for tensor in node.outputs}
        taken = names_in(copy)
        for reader in region.readers:
            node = copy.nodes[places[id(reader.node)]]
            values = rounded(node, np.asarray(constant_of(node.inputs[1])), reader.place.spread(divisors), levels.weight)
            node.inputs[1] = Constant(unique_name(taken, f"{node.name}_rounded"), values)
        for grid in region.grids:
            scale, zero_point = affine_grid(Range(*grid_range(grid, divisors)), int(levels.activation) + 1)
            for place, _ in grid:
                _insert(copy, tensors[place.tensor.name], place, divisors, (scale, zero_point, int(levels.activation)), taken)
        runner = Runner(copy.toposort())
        answers = [runner.run(feed) for feed in self.feeds]
        return sum(_error([known[name] for known in self.expected], [got[name] for got in answers]) for name in self.expected[0])


def _error(expected: Sequence[Array], answers: Sequence[Array]) -> float:
    signal = sum(float(np.square(real, dtype=np.float64).sum()) for real in expected)
    noise = sum(float(np.square(np.subtract(real, got, dtype=np.float64)).sum()) for real, got in zip(expected, answers, strict=True))
    return noise / max(signal, 1e-30)


def rounded(node: Node, weight: Array, divisor: Array, levels: float) -> Array:
    """``Q(W s) / s`` with one symmetric grid an output channel, in the weight's shape and type."""
    rows = with_columns(node, columns_of(node, rows_of(node, weight.astype(np.float64))) * divisor[:, None, None])
    step = np.abs(rows).max(axis=(1, 2), keepdims=True, initial=0.0) / levels
    step = np.where(step > 0, step, 1.0)
    columns = columns_of(node, np.rint(rows / step) * step) / divisor[:, None, None]
    return weight_of_rows(node, with_columns(node, columns), weight.shape).astype(weight.dtype, order="C")


def _insert(graph: Graph, tensor: Variable, place: Place, divisors: Array, grid: tuple[float, int, int], taken: set[str]) -> None:
    """Put ``s Q(x / s)`` behind a tensor."""
    scale, zero_point, largest = grid
    spread = spread_of(place, place.spread(divisors))
    bounds = ((0 - zero_point) * scale * spread, (largest - zero_point) * scale * spread)
    step = spread * scale
    result = Variable(unique_name(taken, f"{tensor.name}_tried"), dtype=tensor.dtype, shape=tensor.shape)
    replace_uses(graph, tensor, result)
    steps: list[tuple[str, list[Array]]] = [("Div", [step]), ("Round", []), ("Mul", [step]), ("Max", [bounds[0]]), ("Min", [bounds[1]])]
    current = tensor
    for index, (op, operands) in enumerate(steps):
        last = index == len(steps) - 1
        target = result if last else Variable(unique_name(taken, f"{tensor.name}_{op}"), dtype=tensor.dtype)
        constants = [Constant(unique_name(taken, f"{tensor.name}_{op}_by"), np.asarray(values, np.float32)) for values in operands]
        graph.nodes.append(Node(op, unique_name(taken, f"{tensor.name}_{op}_node"), {}, [current, *constants], [target]))
        current = target
