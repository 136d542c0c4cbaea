"""How far a tensor reaches on feeds that calibration did not show, as far as the graph tells.

Calibration shows data; masks, positions and tables that positions look up have bounds of their own
(`qcompiler.value_kinds`). Where such a tensor could have been lower or higher than it was seen, so could what it is
added to, multiplied with or put beside: with ``s = a + b`` the lower end of ``s`` moves down by as much as those of
``a`` and ``b``. Layers and other functions of data end this: what they give is what was seen.

A tensor in which a mask puts a fill covers the data alone, one step more for the fill, and what a Softmax needs below
its scores.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce

from qcompiler.calibration.collect import HUGE
from qcompiler.calibration.observers import Range
from qcompiler.graph.exactness import filled, is_fill, selections
from qcompiler.graph.ir import Constant, Graph, Node, Tensor, constant_of, consumers, is_float, producer
from qcompiler.graph.operators import MOVERS
from qcompiler.graph.value_kinds import Kind, Value

__all__ = ["reached"]

_CODES = 254
"""Codes left for the data where one more code is the fill's."""


@dataclass(frozen=True)
class _Growth:
    """By how much a tensor may go below and above what was seen of it."""

    down: float = 0.0
    up: float = 0.0

    def __bool__(self) -> bool:
        return self.down > 0 or self.up > 0


def reached(
    graph: Graph,
    kinds: Mapping[str, Value],
    seen: Mapping[str, Range],
    floors: Mapping[str, float],
    left_float: Collection[int] = (),
) -> tuple[dict[str, Range], dict[str, float]]:
    """Ranges by tensor name, widened or freed of fills, and the floors with those of fills that became codes.

    Args:
        graph: float graph in topological order.
        kinds: what the values of its tensors are.
        seen: finite ranges that calibration showed.
        floors: by tensor name, the value below which nothing matters.
        left_float: ids of nodes without grids.
    """
    reach = _Reach(kinds, dict(seen), dict(floors), filled(graph, kinds), left_float)
    for tensor in graph.inputs:
        reach.grow(tensor, reach.of_exact(tensor) or _Growth())
    for node in graph.nodes:
        reach.visit(node)
    return reach.ranges, reach.floors


class _Reach:
    """The analysis, node by node."""

    def __init__(
        self,
        kinds: Mapping[str, Value],
        ranges: dict[str, Range],
        floors: dict[str, float],
        fills: set[str],
        left_float: Collection[int],
    ) -> None:
        self.ranges, self.floors = ranges, floors
        self._kinds, self._fills, self._left_float = kinds, fills, left_float
        self._growth: dict[str, _Growth] = {}

    def visit(self, node: Node) -> None:
        """Find out about the outputs of a node whose inputs are known."""
        for tensor in node.outputs:
            if not tensor.name or not is_float(tensor):
                continue
            if tensor.name in self._fills and tensor.name in self.ranges:
                self._free_of_fills(node, tensor)
                continue
            growth = self.of_exact(tensor) or self._of_table(node, tensor) or self._passed_on(node, tensor)
            self.grow(tensor, growth)

    def grow(self, tensor: Tensor, growth: _Growth) -> None:
        """Widen the range of a tensor."""
        extent = self.ranges.get(tensor.name)
        if not growth or extent is None:
            if growth:
                self._growth[tensor.name] = growth
            return
        floor = self.floors.get(tensor.name, -math.inf)
        lo, hi = max(extent.lo - growth.down, min(floor, extent.lo)), extent.hi + growth.up
        is_mask = self._kinds[tensor.name].kind == Kind.TRUTH
        least, most = (-HUGE, HUGE) if is_mask else (extent.lo, extent.hi)
        # a mask is cut off where it is read; of positions nothing is known
        self.ranges[tensor.name] = Range(lo if lo > -HUGE else least, hi if hi < HUGE else most)
        self._growth[tensor.name] = growth

    def of_exact(self, tensor: Tensor) -> _Growth | None:
        """What is known of a mask or position and was not seen; None for data."""
        value, extent = self._kinds.get(tensor.name), self.ranges.get(tensor.name)
        if value is None or extent is None or not value.exact or value.kind == Kind.CONSTANT:
            return None
        return _beyond(extent, value)

    def _of_table(self, node: Node, tensor: Tensor) -> _Growth | None:
        """The rows of a table that computed positions did not look up."""
        extent, value = self.ranges.get(tensor.name), self._kinds[tensor.name]
        if (
            node.op != "Gather"
            or constant_of(node.inputs[0]) is None
            or extent is None
            or not value.bounded
            or not _is_computed(node.inputs[1])
        ):
            return None
        return _beyond(extent, value)

    def _passed_on(self, node: Node, tensor: Tensor) -> _Growth:
        growths = [self._growth.get(source.name, _Growth()) for source in node.inputs]
        if not any(growths):
            return _Growth()
        if node.op in ("Add", "Sum"):
            return _Growth(sum(growth.down for growth in growths), sum(growth.up for growth in growths))
        if node.op == "Sub":
            return _Growth(growths[0].down + growths[1].up, growths[0].up + growths[1].down)
        if node.op == "Neg":
            return _Growth(growths[0].up, growths[0].down)
        if node.op == "Relu":
            return _Growth(0.0, growths[0].up)
        if node.op in MOVERS:
            return growths[0]
        sources = node.inputs[1:] if node.op == "Where" else node.inputs
        if node.op in ("Where", "Concat", "Max", "Min"):
            return self._towards(tensor, [self._extent(source) for source in sources])
        if node.op == "Mul":
            return self._towards(tensor, [_product([self._extent(source) for source in sources])])
        return _Growth()

    def _extent(self, tensor: Tensor) -> Range | None:
        value = constant_of(tensor)
        if value is not None and value.size:
            return Range(float(value.min()), float(value.max()))
        return self.ranges.get(tensor.name)

    def _towards(self, tensor: Tensor, extents: Iterable[Range | None]) -> _Growth:
        """What makes the range of ``tensor`` hold all of ``extents``."""
        own = self.ranges.get(tensor.name)
        known = [extent for extent in extents if extent is not None]
        if own is None or not known:
            return _Growth()
        whole = reduce(Range.join, known)
        return _Growth(max(0.0, own.lo - whole.lo), max(0.0, whole.hi - own.hi))

    def _free_of_fills(self, node: Node, tensor: Tensor) -> None:
        """Let the range of ``tensor`` cover its data, a step for the fill, and what a Softmax looks at."""
        extents = [extent for source in selections(node, self._kinds) if (extent := self._extent(source)) is not None]
        if not extents:
            return
        whole = reduce(Range.join, extents)
        step = max(whole.hi - whole.lo, 2.0**-100) / _CODES
        floor = self.floors.get(tensor.name)
        above = step if self.ranges[tensor.name].hi > whole.hi else 0.0
        lo = whole.lo - step if floor is None else floor
        self.ranges[tensor.name] = Range(lo, max(whole.hi + above, lo))
        if id(node) not in self._left_float:
            self._raise_fills(node, lo, lo - whole.hi)

    def _raise_fills(self, node: Node, lo: float, below: float) -> None:
        """Let fills be as low as the grid of a node's result, those that it adds to data low enough for any datum: one
        code is theirs.
        """
        for operand in node.inputs:
            value = self._kinds.get(operand.name)
            if constant_of(operand) is not None and is_fill(operand, self._kinds):
                self.floors[operand.name] = min(lo, self.floors.get(operand.name, lo))
            elif node.op in ("Add", "Sub") and value is not None and value.kind == Kind.TRUTH:
                self._raise_truth(operand, below if node.op == "Add" or operand is node.inputs[0] else None)
            elif is_fill(operand, self._kinds) and all(user is node for user in consumers(operand)):
                self._cut_off(operand, self.ranges[node.outputs[0].name])

    def _cut_off(self, fill: Tensor, extent: Range) -> None:
        """Let the grid of a computed fill end where that of the data beside it does, and what is moved to it."""
        own, node = self.ranges.get(fill.name), producer(fill)
        if constant_of(fill) is not None:
            self.floors[fill.name] = min(extent.lo, self.floors.get(fill.name, extent.lo))
        if node is not None and node.op in MOVERS and len(consumers(node.inputs[0])) == 1:
            self._cut_off(node.inputs[0], extent)
        if own is not None:
            self.ranges[fill.name] = Range(
                min(max(own.lo, extent.lo), extent.hi), min(max(own.hi, extent.lo), extent.hi)
            )

    def _raise_truth(self, tensor: Tensor, lo: float | None) -> None:
        """Cut off a mask at ``lo``, and the constants that it is made of, where nobody else reads it."""
        node, extent = producer(tensor), self.ranges.get(tensor.name)
        if (
            lo is None
            or node is None
            or extent is None
            or any(user.op not in ("Add", *MOVERS) or id(user) in self._left_float for user in consumers(tensor))
        ):
            return
        least = max(lo, extent.lo)
        self.ranges[tensor.name] = Range(least, max(extent.hi, least))
        if node.op in MOVERS:
            self._raise_truth(node.inputs[0], least)
        for operand in node.inputs if node.op in ("Mul", "Where") else []:
            if is_fill(operand, self._kinds):
                self.floors[operand.name] = min(least, self.floors.get(operand.name, least))


def _beyond(extent: Range, value: Value) -> _Growth:
    return _Growth(max(0.0, extent.lo - value.lo), max(0.0, value.hi - extent.hi))


def _product(extents: list[Range | None]) -> Range | None:
    if len(extents) != 2 or extents[0] is None or extents[1] is None:
        return None
    corners = [a * b for a in (extents[0].lo, extents[0].hi) for b in (extents[1].lo, extents[1].hi)]
    return Range(min(corners), max(corners))


def _is_computed(tensor: Tensor) -> bool:
    """False for a constant, and for an input that is looked up as it is (tokens)."""
    node = producer(tensor)
    while node is not None and node.op in (*MOVERS, "Cast", "Clip") and not isinstance(tensor, Constant):
        tensor = node.inputs[0]
        node = producer(tensor)
    return node is not None and constant_of(tensor) is None
