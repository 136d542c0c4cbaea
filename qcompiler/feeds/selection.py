"""Which feeds take part in what: a few spread evenly over all, and a fifth held out that nothing is fitted to.

Feeds that follow each other are often relatives: crops of one picture, lines of one page, frames of one film. A run of
neighbours is held out, for a feed whose relatives were fitted to is no judge of what others lose.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from qcompiler.graph.ir import Feed

__all__ = [
    "HELD_SHARE", "count_feeds", "feeds_to_judge", "fold_of", "held_feeds", "held_out", "split_feeds", "spread_feeds",
    "spread_places",
]  # fmt: skip

HELD_SHARE = 5
"""One feed in this many is held out."""

JUDGES, MORE_JUDGES, JUDGES_BYTES = 8, 64, 16 << 20
"""Feeds held out for the report: at most the first number, or the second where they take no more than these bytes."""


def count_feeds(data: Iterable[Feed]) -> int:
    """How many feeds there are."""
    known = getattr(data, "length", None)
    return int(known) if known is not None else sum(1 for _ in data)


def held_out(feeds: int, seed: int) -> frozenset[int]:
    """Indices of the validation feeds: one run of 1/`HELD_SHARE` of them at a seeded place; none of fewer feeds."""
    if feeds < HELD_SHARE:
        return frozenset()
    count = round(feeds / HELD_SHARE)
    first = int(np.random.default_rng([seed, feeds]).integers(feeds - count + 1))
    return frozenset(range(first, first + count))


def fold_of(index: int, count: int, folds: int) -> int:
    """The fold, a run of neighbours, of one of ``count`` feeds."""
    return index * folds // max(count, 1)


def spread_places(count: int, most: int) -> list[int]:
    """Up to ``most`` of ``count`` indices, spread evenly."""
    return sorted({int(place) for place in np.linspace(0, count - 1, min(most, count)).round()}) if count else []


def spread_feeds(data: Iterable[Feed], count: int, among: frozenset[int] | None = None) -> list[Feed]:
    """Up to ``count`` feeds spread evenly over ``data`` (or the indices ``among``); only these are kept in memory."""
    indices = sorted(among) if among is not None else list(range(count_feeds(data)))
    wanted = {indices[place] for place in spread_places(len(indices), count)}
    return [feed for index, feed in enumerate(data) if index in wanted]


def held_feeds(data: Iterable[Feed], count: int, seed: int) -> list[Feed]:
    """Up to ``count`` of the feeds held out; of all feeds where there are too few to hold any out."""
    return spread_feeds(data, count, held_out(count_feeds(data), seed) or None)


def split_feeds(data: Iterable[Feed], count: int, seed: int) -> tuple[list[Feed], list[Feed]]:
    """Up to ``count`` feeds to fit on and a quarter as many (at least one) to validate on; the same if too few."""
    feeds = count_feeds(data)
    held = held_out(feeds, seed)
    if not held:
        few = spread_feeds(data, count)
        return few, few
    return spread_feeds(data, count, frozenset(range(feeds)) - held), held_feeds(data, max(count // 4, 1), seed)


def feeds_to_judge(data: Iterable[Feed], seed: int) -> tuple[frozenset[int], int]:
    """Indices of the feeds that the report is measured on and nothing is fitted to, and how many there are at most.

    The last one of two to four feeds; of a single one none.
    """
    feeds = count_feeds(data)
    size = sum(array.nbytes for array in next(iter(data)).values())
    most = int(np.clip(JUDGES_BYTES // max(size, 1), JUDGES, MORE_JUDGES))
    held = sorted(held_out(feeds, seed)) or list(range(max(feeds - 1, 1), feeds))
    return frozenset(held[:most]), most
