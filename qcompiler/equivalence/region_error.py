"""Measures what a transform of a region does to the outputs of the network, on a copy of the graph.

In the copy the transform is applied, every tensor of the region that will have a grid goes through one, and the weights
at its ends are rounded. All else stays float, so what the outputs err by is the noise of this region alone. The grids
cover what some feeds showed; the noise is measured on others, so a transform that leaves no room for unseen values is
found out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.calibration.observers import Range, affine_grid
from qcompiler.equivalence.fold import Workspace
from qcompiler.equivalence.levels import Levels
from qcompiler.equivalence.matrices import rows_of, weight_of_rows
from qcompiler.equivalence.regions import Region, find_regions
from qcompiler.errors import QCompilerError
from qcompiler.graph.ir import (
    Constant,
    Feed,
    Graph,
    Node,
    Tensor,
    Variable,
    constant_of,
    copy_of,
    names_in,
    replace_uses,
    unique_name,
)
from qcompiler.graph.runner import Runner
from qcompiler.shapes.infer import Shape, infer_shapes

__all__ = ["Span", "Transform", "Trial"]

Array = NDArray[Any]
Transform = Callable[[Workspace, Region], None]

HUGE = 1e30
"""Noise of a transform under which the network cannot run."""


@dataclass(frozen=True)
class Span:
    """A grid: the places (numbers within the region) of the tensors that share it, and the range it covers."""

    places: Sequence[int]
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Trial:
    """A float graph, the shapes of its tensors, feeds, and its outputs for them."""

    graph: Graph
    shapes: Mapping[str, Shape]
    feeds: Sequence[Feed]
    expected: Sequence[Mapping[str, Array]]

    @staticmethod
    def on(graph: Graph, feeds: Sequence[Feed]) -> Trial:
        """Run the float graph once."""
        runner = Runner(graph)
        return Trial(graph, infer_shapes(graph), feeds, [runner.run(feed) for feed in feeds])

    def noise(self, region: Region, transform: Transform, spans: Sequence[Span], levels: Levels) -> float:
        """Output noise relative to the outputs' energy, summed, with ``region`` transformed and on grids."""
        copy = copy_of(self.graph)
        wanted = (region.name, region.places[0].layout)
        here = next(
            other for other in find_regions(copy, self.shapes) if (other.name, other.places[0].layout) == wanted
        )
        work = Workspace(copy)
        transform(work, here)
        work.commit({})
        taken = names_in(copy)
        for node in {
            id(end.node): end.node for place in here.places for end in place.ends if end.role == "weight"
        }.values():
            rounded = round_rows(node, np.asarray(constant_of(node.inputs[1])), levels.weight)
            node.inputs[1] = Constant(unique_name(taken, f"{node.name}_rounded"), rounded)
        for span in spans:
            for place in span.places:
                _insert_grid(copy, here.places[place].tensor, span, int(levels.activation), taken)
        return self._error(copy.toposort())

    def _error(self, graph: Graph) -> float:
        try:
            runner = Runner(graph)
            # outputs on a grid have new names
            answers = [dict(zip(self.expected[0], runner.run(feed).values(), strict=True)) for feed in self.feeds]
        except QCompilerError:
            return HUGE
        total = 0.0
        for name in self.expected[0]:
            signal = sum(float(np.square(known[name], dtype=np.float64).sum()) for known in self.expected)
            pairs = zip(self.expected, answers, strict=True)
            total += sum(
                float(np.square(np.subtract(known[name], got[name], dtype=np.float64)).sum()) for known, got in pairs
            ) / max(signal, 1e-30)
        return total if np.isfinite(total) else HUGE


def round_rows(node: Node, weight: Array, levels: float) -> Array:
    """The weight on one symmetric grid an output channel, in its shape and type."""
    rows = rows_of(node, weight.astype(np.float64))
    step = np.abs(rows).max(axis=(1, 2), keepdims=True, initial=0.0) / levels
    step = np.where(step > 0, step, 1.0)
    return weight_of_rows(node, np.rint(rows / step) * step, weight.shape).astype(weight.dtype, order="C")


def _insert_grid(graph: Graph, tensor: Tensor, span: Span, largest: int, taken: set[str]) -> None:
    """Round the values of a tensor to the grid of ``largest`` steps over the span, and clip them to it."""
    scale, zero_point = affine_grid(Range(span.low, span.high), largest + 1)
    result = Variable(unique_name(taken, f"{tensor.name}_rounded"), dtype=tensor.dtype, shape=tensor.shape)
    replace_uses(graph, tensor, result)
    current: Tensor = tensor
    steps: tuple[tuple[str, list[float]], ...] = (
        ("Div", [scale]),
        ("Round", []),
        ("Clip", [-zero_point, largest - zero_point]),
        ("Mul", [scale]),
    )
    for op, operands in steps:
        target = result if op == "Mul" else Variable(unique_name(taken, f"{tensor.name}_{op}"), dtype=tensor.dtype)
        constants = [
            Constant(unique_name(taken, f"{tensor.name}_{op}_by"), np.array(value, np.float32)) for value in operands
        ]
        graph.nodes.append(
            Node(op, unique_name(taken, f"{tensor.name}_{op}_node"), {}, [current, *constants], [target])
        )
        current = target
