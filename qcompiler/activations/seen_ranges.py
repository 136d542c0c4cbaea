"""What feeds showed of the tensors of a float graph, and the range that a group of them takes from that.

A range covers what was seen, with room for what few values have not shown yet (`calibration.observers.beyond`), within
what mathematics admits (`graph.intervals`), and what an output of known range asks for (`activations.reach`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import chain

import numpy as np

from qcompiler.activations.reach import reached
from qcompiler.calibration.collect import HUGE, Statistics, collect_ranges, observe
from qcompiler.calibration.needed import needed_ranges
from qcompiler.calibration.observers import UNSEEN_NUMBERS, ObserverName
from qcompiler.calibration.softmax_floor import softmax_floors
from qcompiler.feeds.selection import count_feeds, fold_of
from qcompiler.graph.exactness import filled
from qcompiler.graph.intervals import BOUNDED, Intervals, bounded_source
from qcompiler.graph.ir import Constant, Feed, Graph, Node, Tensor
from qcompiler.graph.placement import Group, Placement
from qcompiler.graph.ranges import Range
from qcompiler.graph.value_kinds import Value

__all__ = [
    "Seen", "balanced", "few_seen", "group_range", "hardly_seen", "look", "roomy", "softmax_axes", "some_seen",
    "within",
]  # fmt: skip

SOME = 128
"""Rows below which the values of others are often beyond those that were seen."""

HANDFUL, HANDFUL_NUMBERS = 32, 4096
"""Rows, and numbers in them, below which not even what layers multiply gets along with a range that was seen."""


def softmax_axes(nodes: Iterable[Node]) -> dict[str, int]:
    """Axis of each Softmax among ``nodes``, by the name of its input."""
    return {node.inputs[0].name: int(node.attrs.get("axis", -1)) for node in nodes if node.op == "Softmax"}


def _constant_range(tensor: Constant, floors: Mapping[str, float]) -> Range:
    values = np.maximum(np.asarray(tensor.values), floors.get(tensor.name, -np.inf))
    finite = values[np.abs(values) < HUGE]
    shown = finite if finite.size else np.clip(values, -HUGE, HUGE)
    return Range(float(shown.min()), float(shown.max())) if shown.size else Range(0.0, 0.0)


@dataclass(frozen=True)
class Seen:
    """What some feeds showed of the tensors of a float graph.

    Attributes:
        ranges: what the observer chose, by tensor name.
        statistics: the same tensors' blocks.
        floors: by tensor name, below which nothing matters.
        needed: by tensor name, what its grid must hold besides (`activations.reach`).
        exact: names of tensors whose values are known (masks, positions, fills): nothing else is to come.
        room: leave room for values not yet seen; not where the observer leaves values out.
    """

    ranges: Mapping[str, Range]
    statistics: Statistics
    floors: Mapping[str, float]
    needed: Mapping[str, Range]
    exact: frozenset[str]
    room: bool

    def of(self, tensor: Tensor) -> Range:
        """The range of a tensor, with room for values not yet seen where few were."""
        if isinstance(tensor, Constant):
            return _constant_range(tensor, self.floors)
        extent = self.ranges[tensor.name]
        if not self.room or tensor.name in self.exact:
            return extent
        below, above = self.statistics.unseen(tensor.name, self.floors.get(tensor.name, -np.inf))
        return Range(extent.lo - below, extent.hi + above)


def group_range(group: Group, seen: Seen, intervals: Intervals, *, at_output: bool) -> Range:
    """What the grid of a group covers: what was seen and what may follow, within what mathematics admits.

    At an output, where operators of known range write, it is that range, seen or not: a detector calibrated on nothing
    it is to detect must still be able to say so.
    """
    if group.unit_range:
        return Range(0.0, 1.0)
    sources = (
        [bounded_source(tensor) for tensor in group.tensors if not isinstance(tensor, Constant)] if at_output else []
    )
    if sources and all(node is not None and node.op in BOUNDED for node in sources):
        return reduce(Range.join, [intervals.of(tensor) for tensor in group.tensors])
    ranges = [within(seen.of(tensor), intervals.of(tensor), seen.ranges.get(tensor.name)) for tensor in group.tensors]
    return reduce(
        Range.join, [*ranges, *(seen.needed[tensor.name] for tensor in group.tensors if tensor.name in seen.needed)]
    )


def few_seen(group: Group, seen: Seen) -> bool:
    """True where few numbers of all tensors of a group were seen."""
    return not group.unit_range and all(
        seen.statistics.numbers.get(tensor.name, 0) < UNSEEN_NUMBERS for tensor in group.tensors
    )


def hardly_seen(group: Group, seen: Seen) -> bool:
    """True where a tensor's values are of a handful of rows: their range says next to nothing of others. Others of its
    group may hold more of them (a cache beside what goes into it).
    """
    names = [tensor.name for tensor in group.tensors if tensor.name in seen.statistics.numbers]
    rows = [seen.statistics.lows[name].size for name in names]
    numbers = [seen.statistics.numbers[name] for name in names]
    return any(n < HANDFUL_NUMBERS and count < HANDFUL for n, count in zip(numbers, rows, strict=True))


def some_seen(group: Group, seen: Seen) -> bool:
    """True where a tensor's values are of some rows."""
    rows = [seen.statistics.lows[tensor.name].size for tensor in group.tensors if tensor.name in seen.statistics.lows]
    return any(count < SOME for count in rows)


def roomy(group: Group, extent: Range, room: float, intervals: Intervals) -> Range:
    """A range ``room`` times as far out, within what mathematics admits of each tensor.

    Codes beyond that say what cannot be: a logarithm of what rounding made 0 would come out far below the least there
    is.
    """
    known = reduce(Range.join, [intervals.of(tensor) for tensor in group.tensors])
    return within(Range(room * extent.lo, room * extent.hi), known, extent)


def balanced(extent: Range) -> Range:
    """A range as far on one side of zero as on the other, where a handful of rows reached about as far on both."""
    near, far = sorted((-extent.lo, extent.hi))
    return Range(-far, far) if near > far / 2 else extent


def within(extent: Range, known: Range, seen: Range | None) -> Range:
    """The part of a range that ``known`` admits; what was seen stays, whatever rounding did to it."""
    inside = Range(max(extent.lo, known.lo), min(extent.hi, known.hi))
    return extent if inside.lo > inside.hi else inside if seen is None else inside.join(seen)


def look(
    graph: Graph, placement: Placement, fitted: Statistics, kinds: Mapping[str, Value], data: Iterable[Feed],
    held: Sequence[Feed], observer: ObserverName, folds: int = 0,
) -> list[Seen]:  # fmt: skip
    """What the feeds that everything is fitted to showed; what all feeds did; and what all but those of each fold did.

    Args:
        graph: float graph.
        placement: where grids go.
        fitted: what ``data`` showed of the tensors in question.
        kinds: of the values of its tensors.
        data: the feeds that everything is fitted to.
        held: the others.
        observer: how ranges are chosen.
        folds: parts of ``data`` (`feeds.selection.fold_of`), each left out once.
    """
    names, axes = list(fitted.ranges), softmax_axes(graph.nodes)
    left_float = {id(node) for node, _ in placement.left_float} | placement.border
    others = [collect_ranges(graph, names, held, axes)] if held else []
    sets: list[tuple[Statistics, Iterable[Feed]]] = [(fitted, data), (reduce(Statistics.join, others, fitted), data)]
    if held:
        sets[1] = (sets[1][0], _Chained(data, held))
    count = count_feeds(data) if folds else 0
    parts = [collect_ranges(graph, names, _Fold(data, fold, count, folds), axes) for fold in range(folds)]
    sets += [(reduce(Statistics.join, [*parts[:fold], *parts[fold + 1:], *others]), ()) for fold in range(folds)]
    found = []
    for statistics, feeds in sets:
        floors = softmax_floors(graph, statistics.ranges, statistics.row_maxima, left_float)
        ranges, floors = reached(graph, kinds, observe(graph, statistics, feeds, observer, floors), floors, left_float)
        needed = needed_ranges(graph, lambda tensor, known=ranges: known.get(tensor.name))  # type: ignore[misc]
        exact = frozenset(name for name, value in kinds.items() if value.exact) | filled(graph, kinds)
        found.append(Seen(ranges, statistics, floors, needed, exact, observer == "minmax"))
    return found


@dataclass(frozen=True)
class _Chained:
    """Feeds, and others behind them."""

    first: Iterable[Feed]
    second: Iterable[Feed]

    def __iter__(self) -> Iterator[Feed]:
        return chain(self.first, self.second)


@dataclass(frozen=True)
class _Fold:
    """The feeds of one fold."""

    data: Iterable[Feed]
    fold: int
    count: int
    folds: int

    def __iter__(self) -> Iterator[Feed]:
        return (
            feed for index, feed in enumerate(self.data) if fold_of(index, self.count, self.folds) == self.fold
        )
