"""Inputs unlike those of the calibration, made from one of its feeds, where the graph admits them.

Padding in a mask that held none, half and twice the length, a batch of two, an empty cache, later positions, another
number where an input held one alone. What belongs to what is read from the symbols of the inputs' shapes and from the
words that exporters use in their names; a feed that the float model refuses says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.graph.ir import Feed, Graph, Tensor

__all__ = ["unseen_feeds"]

Array = NDArray[Any]

SETTING = 4
"""Most elements of a row of an input that is a setting, not data."""

SHORTEST = 4
"""Least length that is tried at half."""


def unseen_feeds(graph: Graph, feeds: Sequence[Feed]) -> Iterator[tuple[str, Feed]]:
    """How each input differs from those of ``feeds``, and the input."""
    yield from _padded(graph, feeds)
    yield from _other_lengths(graph, feeds)
    yield from _other_batch(graph, feeds)
    yield from _empty_caches(graph, feeds)
    yield from _later_positions(graph, feeds)
    yield from _other_settings(graph, feeds)


def _is_called(tensor: Tensor, *words: str) -> bool:
    return any(word in tensor.name.lower() for word in words)


def _padded(graph: Graph, feeds: Sequence[Feed]) -> Iterator[tuple[str, Feed]]:
    masks = [
        tensor.name
        for tensor in graph.inputs
        if _is_called(tensor, "mask") and _only_ones([feed[tensor.name] for feed in feeds])
    ]
    masks = [name for name in masks if feeds[0][name].ndim and feeds[0][name].shape[-1] >= 2]
    if masks:
        yield (
            f"padding: the last half of '{masks[0]}' 0",
            {**feeds[0], **{name: _masked(feeds[0][name]) for name in masks}},
        )


def _only_ones(arrays: Sequence[Array]) -> bool:
    return all(array.size and bool(np.all(array == 1)) for array in arrays)


def _masked(mask: Array) -> Array:
    result = mask.copy()
    result[..., (mask.shape[-1] + 1) // 2 :] = 0
    return result


def _symbols(graph: Graph) -> dict[str, list[tuple[str, int]]]:
    """Inputs and axes of each symbolic size."""
    found: dict[str, list[tuple[str, int]]] = {}
    for tensor in graph.inputs:
        for axis, size in enumerate(tensor.shape or ()):
            if isinstance(size, str) and size:
                found.setdefault(size, []).append((tensor.name, axis))
    return found


def _changed(feed: Feed, places: Sequence[tuple[str, int]], change: Callable[[Array, int], Array]) -> Feed:
    result = dict(feed)
    for name, axis in places:
        result[name] = np.ascontiguousarray(change(result[name], axis))
    return result


def _other_lengths(graph: Graph, feeds: Sequence[Feed]) -> Iterator[tuple[str, Feed]]:
    for symbol, places in _symbols(graph).items():
        sizes = {feeds[0][name].shape[axis] for name, axis in places}
        if any(axis == 0 for _, axis in places) or len(sizes) != 1 or (size := sizes.pop()) < SHORTEST:
            continue
        seen = {feed[name].shape[axis] for feed in feeds for name, axis in places}
        if min(seen) > size // 2:
            yield (
                f"half the length: {symbol} = {size // 2}",
                _changed(feeds[0], places, lambda x, axis: np.take(x, range(x.shape[axis] // 2), axis)),
            )
        if max(seen) < 2 * size:
            longer = _changed(feeds[0], places, lambda x, axis: np.concatenate([x, x], axis))
            yield f"twice the length: {symbol} = {2 * size}", _counted_on(graph, longer, places)


def _counted_on(graph: Graph, feed: Feed, places: Sequence[tuple[str, int]]) -> Feed:
    """Positions that go on counting where a feed was made longer."""
    result = dict(feed)
    for tensor in graph.inputs:
        axis = next((axis for name, axis in places if name == tensor.name), None)
        if axis is not None and _is_called(tensor, "position") and result[tensor.name].dtype.kind in "iu":
            first = np.take(result[tensor.name], [0], axis)
            shape = [-1 if index == axis else 1 for index in range(first.ndim)]
            result[tensor.name] = (first + np.arange(result[tensor.name].shape[axis]).reshape(shape)).astype(
                first.dtype
            )
    return result


def _other_batch(graph: Graph, feeds: Sequence[Feed]) -> Iterator[tuple[str, Feed]]:
    """Two feeds, one behind the other, where every input has a symbolic first axis and all feeds one size there."""
    names = [tensor.name for tensor in graph.inputs]
    symbolic = all(tensor.shape and isinstance(tensor.shape[0], str) for tensor in graph.inputs)
    if not symbolic or len({feed[name].shape[0] for feed in feeds for name in names}) != 1:
        return
    other = next(
        (feed for feed in feeds[1:] if all(feed[name].shape == feeds[0][name].shape for name in names)), feeds[0]
    )
    yield (
        f"a batch of {2 * feeds[0][names[0]].shape[0]}",
        {name: np.concatenate([feeds[0][name], other[name]]) for name in names},
    )


def _empty_caches(graph: Graph, feeds: Sequence[Feed]) -> Iterator[tuple[str, Feed]]:
    caches = {
        tensor.name for tensor in graph.inputs if _is_called(tensor, "past", "cache") and len(tensor.shape or ()) >= 3
    }
    for symbol, places in _symbols(graph).items():
        inside = [(name, axis) for name, axis in places if name in caches and axis]
        if not inside or not (length := feeds[0][inside[0][0]].shape[inside[0][1]]):
            continue
        empty = _changed(feeds[0], inside, lambda x, axis: np.take(x, [], axis))
        yield (
            f"an empty cache: {symbol} = 0",
            {name: _shortened(name, value, length, caches) for name, value in empty.items()},
        )


def _shortened(name: str, value: Array, length: int, caches: set[str]) -> Array:
    """A mask without the part that belonged to the cache."""
    covers = "mask" in name.lower() and name not in caches and value.ndim > 1 and value.shape[-1] > length
    return np.ascontiguousarray(value[..., length:]) if covers else value


def _later_positions(graph: Graph, feeds: Sequence[Feed]) -> Iterator[tuple[str, Feed]]:
    for tensor in graph.inputs:
        if _is_called(tensor, "position") and np.dtype(tensor.dtype).kind in "iu":
            step = 1 + max(int(feed[tensor.name].max(initial=0)) for feed in feeds)
            later = (feeds[0][tensor.name] + step).astype(tensor.dtype)
            yield (
                f"later positions: '{tensor.name}' up to {int(later.max(initial=0))}",
                {**feeds[0], tensor.name: later},
            )


def _other_settings(graph: Graph, feeds: Sequence[Feed]) -> Iterator[tuple[str, Feed]]:
    """Another number where all feeds have the same: a speed, a noise level."""
    for tensor in graph.inputs:
        values = [feed[tensor.name] for feed in feeds]
        few = all(0 < value.size <= SETTING * (value.shape[0] if value.ndim > 1 else 1) for value in values)
        if np.dtype(tensor.dtype).kind != "f" or not few or len(feeds) < 2 or _is_called(tensor, "mask"):
            continue
        number = float(values[0].reshape(-1)[0])
        if all(np.all(value == number) for value in values):
            other = 2 * number or 1.0
            what = f"another setting: '{tensor.name}' {other:g} instead of {number:g}"
            yield what, {**feeds[0], tensor.name: np.full_like(values[0], other)}
