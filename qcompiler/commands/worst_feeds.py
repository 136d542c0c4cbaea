"""The feeds on which two models are farthest apart: whole feeds, or rows of a batch that are independent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qcompiler.commands.executors import Executor, Values
from qcompiler.errors import QCompilerError
from qcompiler.graph.ir import Feed, Graph
from qcompiler.report.comparison import CLEAN_DB, WorstFeed
from qcompiler.report.decibels import SAME_DB
from qcompiler.report.measure import Sqnr
from qcompiler.runtime import MachineError

__all__ = ["WORST", "Answered", "worst_feeds"]

WORST = 4
"""Feeds that are kept."""


@dataclass(frozen=True, eq=False)
class Answered:
    """A feed with the outputs of both models that both have."""

    feed: Feed
    first: Values
    second: Values


def worst_feeds(inputs: Graph, reference: Executor, answered: Sequence[Answered]) -> list[WorstFeed]:
    """At most `WORST` feeds, worst first.

    Args:
        inputs: a graph with the model's inputs.
        reference: runs the first model.
        answered: all feeds.
    """
    whole = [_found(at, None, each) for at, each in enumerate(answered)]
    if _has_batch_axis(inputs):
        parts = _ranked([part for feed, each in zip(whole, answered, strict=True) for part in _rows(feed, each)])
        batched = next((part for part in parts if part.row is not None), None)
        if batched is not None and _is_alone(reference, batched):
            return parts
    return _ranked(whole)


def _ranked(feeds: Sequence[WorstFeed]) -> list[WorstFeed]:
    return sorted(feeds, key=lambda each: (each.lowest_db, each.feed, each.row or 0))[:WORST]


def _found(at: int, row: int | None, each: Answered) -> WorstFeed:
    return WorstFeed(at, row, _decibels(each.first, each.second), each.feed, each.first, each.second)


def _decibels(first: Values, second: Values) -> dict[str, float]:
    """By output of numbers; those of other shapes are as far apart as can be."""
    total = Sqnr()
    total.add(first, second)
    shaped = {name: -SAME_DB for name, value in first.items() if name in second and second[name].shape != value.shape}
    return total.db() | shaped


def _rows(feed: WorstFeed, each: Answered) -> list[WorstFeed]:
    """The rows of a feed; all of it where there are not several, or something has another first axis."""
    sizes = {np.shape(array)[:1] for values in (each.feed, each.first, each.second) for array in values.values()}
    count = next(iter(sizes), ()) if len(sizes) == 1 else ()
    if not count or count[0] < 2:
        return [feed]
    return [_found(feed.feed, row, _row(each, row)) for row in range(count[0])]


def _row(each: Answered, row: int) -> Answered:
    cut = ({name: array[row:row + 1] for name, array in part.items()} for part in (each.feed, each.first, each.second))
    return Answered(*cut)


def _has_batch_axis(inputs: Graph) -> bool:
    """True where all inputs have one symbolic first axis."""
    firsts = {tensor.shape[0] if tensor.shape else None for tensor in inputs.inputs}
    return len(firsts) == 1 and isinstance(firsts.pop(), str)


def _is_alone(reference: Executor, part: WorstFeed) -> bool:
    """True where the first model gives a row by itself the outputs that it has in its feed."""
    try:
        alone = reference.run(part.given)
    except (QCompilerError, MachineError):
        return False  # a batch of one is not for this model
    total = Sqnr()
    total.add(part.first, alone)
    same = all(np.shape(alone[name]) == value.shape for name, value in part.first.items())
    return same and min(total.db().values(), default=SAME_DB) >= CLEAN_DB
