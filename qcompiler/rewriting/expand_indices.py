"""Operators that take or put elements by computed indices, as Gather and arithmetic of indices.

    GatherElements, GatherND    Gather from the flat tensor, at places computed from the indices
    ScatterElements, ScatterND  Gather from the data followed by the updates, at places where those of the updates are
                                put: by the constants' own arithmetic, or by a ScatterElements of these numbers;
                                where they add whole rows, a matrix of ones and zeros times the updates
    TopK                        positions alone, and the values that are taken by them
    OneHot, Hardmax             indices compared with 0, 1, 2, …
    ArgMin(x)                   ArgMax(-x)

Sizes may be symbolic where nothing else is said.
"""

from __future__ import annotations

from math import prod
from typing import Any, TypeAlias

import numpy as np

from qcompiler.graph.ir import Node, Tensor, constant_of, is_float, producer
from qcompiler.rewriting.node_writer import Results, Rule, Writer, rank_of

MOST_PLACES = 1 << 22
"""Most elements of a constant map of places."""

Size: TypeAlias = "int | Tensor"
"""A number that is known, or an int64 tensor that holds it while the model runs."""


def sizes_of(tensor: Tensor) -> list[int] | None:
    """The shape where it is known."""
    if tensor.shape is None or not all(isinstance(size, int | np.integer) for size in tensor.shape):
        return None
    return [int(size) for size in tensor.shape]


def unknown_sizes(tensor: Tensor) -> str:
    """Why a rule declines that must know them."""
    return f"the sizes of '{tensor.name}' are not known; fix them: --dim NAME=SIZE"


def counts_of(w: Writer, size: Size) -> Tensor:
    """0 … size - 1."""
    if isinstance(size, int):
        return w.int64("counts", np.arange(size))
    return w.ints("Range", w.int64("zero", 0), size, w.int64("one", 1))


def size_of(w: Writer, x: Tensor, axis: int) -> Size:
    """The size of an axis."""
    if isinstance(x.shape[axis], int | np.integer):
        return int(x.shape[axis])
    return w.ints("Squeeze", w.ints("Shape", x, start=axis, end=axis + 1), w.int64("axis", [0]))


def _number(w: Writer, size: Size) -> Tensor:
    return w.int64("size", size) if isinstance(size, int) else size


def times(w: Writer, a: Size, b: Size) -> Size:
    """Their product."""
    if isinstance(a, int) and isinstance(b, int):
        return a * b
    if isinstance(a, int):
        a, b = b, a
    return a if isinstance(b, int) and b == 1 else w.ints("Mul", _number(w, a), _number(w, b))


def vector_of(w: Writer, sizes: list[Size]) -> Tensor:
    """Sizes as a vector."""
    known = [size for size in sizes if isinstance(size, int)]
    if len(known) == len(sizes):
        return w.int64("shape", known)
    axis = w.int64("axis", [0])
    return w.ints("Concat", *(w.ints("Unsqueeze", _number(w, size), axis) for size in sizes), axis=0)


def _product(w: Writer, sizes: list[Size]) -> Size:
    total: Size = 1
    for size in sizes:
        total = times(w, total, size)
    return total


def _wrapped(w: Writer, indices: Tensor, size: Size) -> Tensor:
    """int64 indices within 0 … size - 1; negative ones count from the end."""
    value = constant_of(indices)
    if value is not None and isinstance(size, int):
        return w.int64("indices", np.where(value < 0, value + size, value))
    wide = indices if indices.dtype == np.int64 else w.ints("Cast", indices, to=7)
    below = w.op("Less", wide, w.int64("zero", 0), dtype=bool)
    wrapped = w.ints("Where", below, w.ints("Add", wide, _number(w, size)), wide)
    wrapped.shape = indices.shape
    return wrapped


def _scaled(w: Writer, places: Tensor, step: Size) -> Tensor:
    return places if isinstance(step, int) and step == 1 else w.ints("Mul", places, _number(w, step))


def _along(w: Writer, x: Tensor, indices: Tensor, axis: int) -> Tensor:
    """Places in the flat ``x`` of what the ``indices`` along an axis, of their shape, mean; these are not negative."""
    rank = len(x.shape)
    sizes = [size_of(w, x, place) for place in range(rank)]
    places, base = _scaled(w, indices, _product(w, sizes[axis + 1:])), np.zeros([1] * rank, np.int64)
    for place in range(rank):
        count, step = size_of(w, indices, place), _product(w, sizes[place + 1:])
        if place == axis or (isinstance(count, int) and count == 1):
            continue
        if isinstance(count, int) and isinstance(step, int):
            base = base + np.arange(count).reshape([-1 if place == other else 1 for other in range(rank)]) * step
            continue
        others = w.int64("axes", [other for other in range(rank) if other != place])
        places = w.ints("Add", places, w.ints("Unsqueeze", _scaled(w, counts_of(w, count), step), others))
    return w.ints("Add", places, w.int64("base", base)) if base.any() else places


def _taken(w: Writer, x: Tensor, places: Tensor) -> Tensor:
    """Elements of ``x`` at places in its flat form."""
    flat = x if len(x.shape) == 1 else w.op("Reshape", x, w.int64("flat", [-1]), dtype=x.dtype)
    return w.op("Gather", flat, places, dtype=x.dtype, axis=0)


def _gather_elements(w: Writer, node: Node) -> Results:
    x, indices = node.inputs
    rank = rank_of(x)
    if rank is None or rank_of(indices) != rank:
        return unknown_sizes(x)
    axis = int(node.attrs.get("axis", 0)) % rank
    return [_taken(w, x, _along(w, x, _wrapped(w, indices, size_of(w, x, axis)), axis))]


def _top_k(w: Writer, node: Node) -> Results:
    """The machine has positions alone."""
    x, rank, (values, places) = node.inputs[0], rank_of(node.inputs[0]), node.outputs
    if not w.is_read(values):
        return None
    if rank is None:
        return unknown_sizes(x)
    unread, indices = w.ops("TopK", node.inputs, [True, True], **node.attrs)
    if unread is None or indices is None:  # for type checkers: both are wanted
        return None
    unread.dtype, unread.shape = x.dtype, values.shape
    indices.dtype, indices.shape = np.dtype(np.int64), places.shape if places.name else values.shape
    if rank_of(indices) != rank:
        return unknown_sizes(x)
    axis = int(node.attrs.get("axis", -1)) % rank
    return [_taken(w, x, _along(w, x, indices, axis)), indices]


def _gather_nd(w: Writer, node: Node) -> Results:
    x, indices, batch = node.inputs[0], node.inputs[1], int(node.attrs.get("batch_dims", 0))
    sizes, chosen = sizes_of(x), sizes_of(indices)
    if sizes is None or chosen is None:
        return unknown_sizes(x if sizes is None else indices)
    depth = chosen[-1]
    places = _rows(w, x, indices, list(range(batch, batch + depth)))
    if places is None:
        return "its indices are empty"
    counted = sizes[batch:batch + depth]
    if batch:
        rows = np.arange(prod(sizes[:batch])).reshape(*sizes[:batch], *[1] * (len(chosen) - 1 - batch))
        places = w.ints("Add", places, w.int64("base", rows * prod(counted)))
    rest = sizes[batch + depth:]
    rows_of = w.op("Reshape", x, w.int64("rows", [prod(sizes[:batch + depth]), *rest]), dtype=x.dtype)
    return [w.op("Gather", rows_of, places, dtype=x.dtype, axis=0)]


def _rows(w: Writer, x: Tensor, indices: Tensor, axes: list[int]) -> Tensor | None:
    """Places among the rows of ``axes`` of ``x``, of indices that name them along their last axis."""
    sizes = [size_of(w, x, axis) for axis in axes]
    places: Tensor | None = None
    for column, size in enumerate(sizes):
        part: Tensor = w.ints("Gather", indices, w.int64("column", column), axis=-1)
        part = _scaled(w, _wrapped(w, part, size), _product(w, sizes[column + 1:]))
        places = part if places is None else w.ints("Add", places, part)
    return places


def _scatter_elements(w: Writer, node: Node) -> Results:
    x, indices, updates = node.inputs
    rank = rank_of(x)
    if rank is None or rank_of(indices) != rank:
        return unknown_sizes(x)
    if not _is_plain(node):
        return _summed_elements(w, node, int(node.attrs.get("axis", 0)) % rank)
    if rank == 1 and not is_float(x) and constant_of(indices) is None:
        return None  # the machine has this
    axis, sizes, known = int(node.attrs.get("axis", 0)) % rank, sizes_of(x), constant_of(indices)
    if known is None or sizes is None:
        places = _along(w, x, _wrapped(w, indices, size_of(w, x, axis)), axis)
        return _put(w, x, places, updates, [])
    grid: list[Any] = list(np.indices(known.shape))
    grid[axis] = np.where(known < 0, known + sizes[axis], known)
    return _scattered(w, x, np.ravel_multi_index(grid, sizes), updates, sizes)


def _scatter_nd(w: Writer, node: Node) -> Results:
    x, indices, updates = node.inputs
    sizes, known, chosen = sizes_of(x), constant_of(indices), indices.shape
    if rank_of(x) is None or not chosen or not isinstance(chosen[-1], int | np.integer):
        return unknown_sizes(indices if rank_of(x) is not None else x)
    depth = int(chosen[-1])
    if not _is_plain(node):
        return _summed_rows(w, node, depth)
    if sizes is not None and known is not None:
        counted, rest = sizes[:depth], prod(sizes[depth:])
        wrapped = np.where(known < 0, known + np.array(counted), known)
        rows = np.ravel_multi_index(list(np.moveaxis(wrapped, -1, 0)), counted)
        return _scattered(w, x, rows[..., None] * rest + np.arange(rest), updates, sizes)
    places, rest_of = _rows(w, x, indices, list(range(depth))), list(x.shape[depth:])
    if places is None or not all(isinstance(size, int | np.integer) for size in rest_of):
        return "its indices are empty" if places is None else unknown_sizes(x)
    return _put(w, x, places, updates, [int(size) for size in rest_of])


def _is_plain(node: Node) -> bool:
    return str(node.attrs.get("reduction", "none")) in ("none", "b'none'")


def _summed_elements(w: Writer, node: Node, axis: int) -> Results:
    """Sums of the elements that one vector of indices sends to the same place of an axis (graph networks)."""
    x, indices, updates = node.inputs
    rank, rows = len(x.shape), _one_vector(w, indices, axis)
    others = [place for place in range(rank) if place != axis]
    if not _adds(node) or rows is None or not is_float(x):
        return "it reduces, and not by sums of whole rows"
    if rank_of(updates) != rank or any(x.shape[k] is None or x.shape[k] != updates.shape[k] for k in others):
        return "its updates may be smaller than its data"
    turn = [axis, *others]
    total = _sums_of(w, _wrapped(w, rows, size_of(w, x, axis)), size_of(w, x, axis), _turned(w, updates, turn))
    total = _turned(w, total, [turn.index(place) for place in range(rank)])
    return [_added(w, x, total)]


def _summed_rows(w: Writer, node: Node, depth: int) -> Results:
    """The same of rows; their indices are rows of one number."""
    x, indices, updates = node.inputs
    if not _adds(node) or depth != 1 or len(indices.shape) != 2 or not is_float(x):
        return "it reduces, and not by sums of whole rows"
    size = size_of(w, x, 0)
    rows = w.ints("Reshape", indices, w.int64("flat", [-1]))
    return [_added(w, x, _sums_of(w, _wrapped(w, rows, size), size, updates))]


def _adds(node: Node) -> bool:
    return node.attrs.get("reduction") in ("add", b"add")


def _one_vector(w: Writer, indices: Tensor, axis: int) -> Tensor | None:
    """The indices along ``axis``, where all other axes repeat them."""
    known, node = constant_of(indices), producer(indices)
    if known is not None:
        line = np.moveaxis(known, axis, 0).reshape(known.shape[axis], -1)
        return w.int64("rows", line[:, 0]) if line.size and (line == line[:, :1]).all() else None
    if len(indices.shape) == 1:
        return indices
    if node is None or node.op != "Expand" or rank_of(node.inputs[0]) != len(indices.shape):
        return None
    ones = all(size == 1 for place, size in enumerate(node.inputs[0].shape) if place != axis)
    return w.ints("Reshape", node.inputs[0], w.int64("flat", [-1])) if ones else None


def _sums_of(w: Writer, rows: Tensor, size: Size, updates: Tensor) -> Tensor:
    """[size, …] with the sums of the updates [n, …] of each row: a matrix of ones and zeros, times them."""
    apart = w.ints("Unsqueeze", counts_of(w, size), w.int64("axis", [1]))
    chosen = w.op("Cast", w.op("Equal", apart, rows, dtype=bool), to=1)
    shape, flat = list(updates.shape), updates
    if len(shape) != 2:
        flat = w.op("Reshape", updates, vector_of(w, [size_of(w, updates, 0), -1]))
    total = w.op("MatMul", chosen, flat)
    if len(shape) == 2:
        return total
    return w.op("Reshape", total, vector_of(w, [-1, *(size_of(w, updates, place) for place in range(1, len(shape)))]))


def _turned(w: Writer, x: Tensor, order: list[int]) -> Tensor:
    if order == sorted(order):
        return x
    turned = w.op("Transpose", x, perm=order)
    turned.shape = None if x.shape is None else [x.shape[axis] for axis in order]
    return turned


def _added(w: Writer, x: Tensor, total: Tensor) -> Tensor:
    """Their sum; the total alone where the data are zeros."""
    node, known = producer(x), constant_of(x)
    value = node.attrs.get("value") if node is not None and node.op == "ConstantOfShape" else None
    zeros = node is not None and node.op == "ConstantOfShape" and (value is None or not np.any(value.values))
    return total if zeros or (known is not None and not known.any()) else w.op("Add", x, total)


def _scattered(w: Writer, x: Tensor, places: Any, updates: Tensor, sizes: list[int]) -> Results:
    """The data with updates at constant places of the flat tensor; the last of equal places counts."""
    if prod(sizes) > MOST_PLACES:
        return "it has too many elements"
    source = np.arange(prod(sizes))
    source[places.reshape(-1)] = source.size + np.arange(places.size)
    both = _joined(w, x, updates, [])
    return [w.op("Gather", both, w.int64("source", source.reshape(sizes)), dtype=x.dtype, axis=0)]


def _joined(w: Writer, x: Tensor, updates: Tensor, rest: list[int]) -> Tensor:
    """The rows of the data, then those of the updates."""
    rows = w.int64("rows", [-1, *rest])
    parts = [w.op("Reshape", tensor, rows, dtype=x.dtype) for tensor in (x, updates)]
    return w.op("Concat", *parts, dtype=x.dtype, axis=0)


def _put(w: Writer, x: Tensor, places: Tensor, updates: Tensor, rest: list[int]) -> Results:
    """The data with updates at places, computed while the model runs, among rows of the shape ``rest``."""
    sizes, rank = sizes_of(x), len(x.shape)
    rows = _product(w, [size_of(w, x, axis) for axis in range(rank - len(rest))])
    if isinstance(rows, int) and rows > MOST_PLACES:
        return "it has too many elements"
    flat = w.ints("Reshape", places, w.int64("flat", [-1]))
    count = w.ints("Squeeze", w.ints("Shape", flat), w.int64("axis", [0]))
    put = w.ints("Add", counts_of(w, count), _number(w, rows))
    source = w.ints("ScatterElements", counts_of(w, rows), flat, put, axis=0)
    y = w.op("Gather", _joined(w, x, updates, rest), source, dtype=x.dtype, axis=0)
    return [w.op("Reshape", y, w.ints("Shape", x) if sizes is None else w.int64("shape", sizes), dtype=x.dtype)]


def _counted(w: Writer, size: int, axis: int, rank: int) -> Tensor:
    """0 … size - 1 along an axis."""
    return w.int64("counts", np.arange(size).reshape([-1 if place == axis else 1 for place in range(rank)]))


def _hardmax(w: Writer, node: Node) -> Results:
    x, rank = node.inputs[0], rank_of(node.inputs[0])
    if rank is None:
        return unknown_sizes(x)
    axis = int(node.attrs.get("axis", -1)) % rank
    if not isinstance(x.shape[axis], int | np.integer):
        return unknown_sizes(x)
    first = w.ints("ArgMax", x, axis=axis, keepdims=1)
    return [w.op("Cast", w.op("Equal", first, _counted(w, int(x.shape[axis]), axis, rank), dtype=bool), to=1)]


def _one_hot(w: Writer, node: Node) -> Results:
    indices, depth, values = node.inputs[0], constant_of(node.inputs[1]), constant_of(node.inputs[2])
    rank = rank_of(indices)
    if depth is None or values is None or rank is None or is_float(indices):
        return "its depth and values are not constant, or its indices are floats"
    size = int(depth.reshape(-1)[0])
    axis = int(node.attrs.get("axis", -1)) % (rank + 1)
    apart = w.ints("Unsqueeze", _wrapped(w, indices, size), w.int64("axis", [axis]))
    hot = w.op("Equal", apart, _counted(w, size, axis, rank + 1), dtype=bool)
    return [w.op("Where", hot, w.constant("on", values[1]), w.constant("off", values[0]))]


def _arg_min(w: Writer, node: Node) -> Results:
    return [w.ints("ArgMax", w.op("Neg", node.inputs[0]), **node.attrs)]


INDICES: dict[str, Rule] = {
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "TopK": _top_k,
    "Hardmax": _hardmax,
    "OneHot": _one_hot,
    "ArgMin": _arg_min,
}
