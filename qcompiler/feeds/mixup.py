"""More feeds from few: mixtures of two, to fit to.

A net that saw eight pictures learns these eight. What lies between two of them is no picture, but the float model
answers it all the same, and its layers must do as well. (Zhang et al., "mixup", 2018, there for training.)
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from qcompiler.graph.ir import Feed

__all__ = ["MANY_FEEDS", "with_mixtures"]

MANY_FEEDS = 256
"""Number of feeds from which no mixtures are made."""

MIXED_BYTES = 1 << 28
"""Bytes of feeds up to which mixtures are made: all are held in memory meanwhile."""

LEAST_SHARE = 0.5
"""Least share of the first feed in a mixture."""


def with_mixtures(data: Iterable[Feed], feeds: int, held: frozenset[int], seed: int) -> tuple[Iterable[Feed], int]:
    """The feeds, then for each that is not ``held`` a mixture with another one of its shapes; and their number.

    Nothing is added to `MANY_FEEDS` and more, to feeds with inputs that are not float, or where all have shapes of
    their own.
    """
    if feeds >= MANY_FEEDS:
        return data, feeds
    known: list[Feed] = []
    size = 0
    for feed in data:
        size += sum(np.asarray(value).nbytes for value in feed.values())
        if size > MIXED_BYTES or any(np.asarray(value).dtype.kind != "f" for value in feed.values()):
            return data, feeds
        known.append(feed)
    rng = np.random.default_rng([seed, feeds])
    to_fit = [feed for number, feed in enumerate(known) if number not in held]
    mixtures = [
        _mixture(feed, others[rng.integers(len(others))], rng) for feed in to_fit if (others := _like(feed, to_fit))
    ]
    return [*known, *mixtures], feeds + len(mixtures)


def _like(feed: Feed, others: Iterable[Feed]) -> list[Feed]:
    """Those of the others with the same shapes."""
    shapes = {name: value.shape for name, value in feed.items()}
    return [
        other
        for other in others
        if other is not feed and {name: value.shape for name, value in other.items()} == shapes
    ]


def _mixture(feed: Feed, other: Feed, rng: np.random.Generator) -> Feed:
    share = rng.uniform(LEAST_SHARE, 1)
    return {name: (share * value + (1 - share) * other[name]).astype(value.dtype) for name, value in feed.items()}
