"""Operators that take or put elements by their place, as Gather, comparisons and arithmetic of indices.

    GatherElements, GatherND   Gather from the flat tensor, at places computed from the indices
    ScatterElements, ScatterND with constant indices: Gather from the data followed by the updates
    OneHot, Hardmax            indices compared with 0, 1, 2, …
    Trilu                      a Where with a constant triangle, or one made of Range
    ArgMin(x)                  ArgMax(-x)
    CumSum(x)                  x times a triangle of ones, or a sum of what one made of Range leaves
    Range of whole floats      Range of integers, then a Cast: how many there are must not hang on a grid

Sizes along which places are counted must be known; the first axis may be symbolic where nothing is counted beyond it.
"""

from __future__ import annotations

from functools import reduce
from math import prod
from typing import Any

import numpy as np

from qcompiler.graph.ir import Node, Tensor, constant_of, is_float, producer
from qcompiler.rewriting.node_writer import Results, Rule, Writer, given, rank_of

MOST_PLACES = 1 << 22
"""Most elements of a constant map of places."""
MOST_FACTORS = 32
"""Most elements of a product that is written out."""
MOST_SUMMANDS = 2048
"""Longest axis of a running sum: the square of it is a weight."""


def _sizes(tensor: Tensor) -> list[int] | None:
    """The shape where it is known."""
    if tensor.shape is None or not all(isinstance(size, int | np.integer) for size in tensor.shape):
        return None
    return [int(size) for size in tensor.shape]


def _unknown(tensor: Tensor) -> str:
    return f"the sizes of '{tensor.name}' are not known; fix them: --dim NAME=SIZE"


def _wrapped(w: Writer, indices: Tensor, size: int) -> Tensor:
    """int64 indices within 0 … size - 1; negative ones count from the end."""
    value = constant_of(indices)
    if value is not None:
        return w.int64("indices", np.where(value < 0, value + size, value))
    wide = indices if indices.dtype == np.int64 else w.ints("Cast", indices, to=7)
    below = w.op("Less", wide, w.int64("zero", 0), dtype=bool)
    return w.ints("Where", below, w.ints("Add", wide, w.int64("size", size)), wide)


def _gather_elements(w: Writer, node: Node) -> Results:
    x, indices = node.inputs
    sizes, chosen = _sizes(x), _sizes(indices)
    if sizes is None or chosen is None:
        return _unknown(x if sizes is None else indices)
    axis = int(node.attrs.get("axis", 0)) % len(sizes)
    steps = [prod(sizes[place + 1:]) for place in range(len(sizes))]
    base = sum(
        np.arange(size).reshape([-1 if place == other else 1 for other in range(len(sizes))]) * steps[place]
        for place, size in enumerate(chosen)
        if place != axis
    )
    places = w.ints("Mul", _wrapped(w, indices, sizes[axis]), w.int64("step", steps[axis]))
    if len(sizes) > 1:
        places = w.ints("Add", places, w.int64("base", base))
    return [w.op("Gather", w.op("Reshape", x, w.int64("flat", [-1])), places, axis=0)]


def _gather_nd(w: Writer, node: Node) -> Results:
    x, indices, batch = node.inputs[0], node.inputs[1], int(node.attrs.get("batch_dims", 0))
    sizes, chosen = _sizes(x), _sizes(indices)
    if sizes is None or chosen is None:
        return _unknown(x if sizes is None else indices)
    depth = chosen[-1]
    counted = sizes[batch:batch + depth]
    places: Tensor | None = None
    for place, size in enumerate(counted):
        part = w.ints("Gather", indices, w.int64("column", place), axis=-1)
        part = w.ints("Mul", _wrapped(w, part, size), w.int64("step", prod(counted[place + 1:])))
        places = part if places is None else w.ints("Add", places, part)
    if places is None:
        return "its indices are empty"
    if batch:
        rows = np.arange(prod(sizes[:batch])).reshape(*sizes[:batch], *[1] * (len(chosen) - 1 - batch))
        places = w.ints("Add", places, w.int64("base", rows * prod(counted)))
    rest = sizes[batch + depth:]
    rows_of = w.op("Reshape", x, w.int64("rows", [prod(sizes[:batch + depth]), *rest]))
    return [w.op("Gather", rows_of, places, axis=0)]


def _scattered(w: Writer, node: Node, places: Any, updates: Tensor) -> Results:
    """The data with updates at constant places of the flat tensor; the last of equal places counts."""
    x = node.inputs[0]
    sizes = _sizes(x)
    if sizes is None or prod(sizes) > MOST_PLACES:
        return _unknown(x) if sizes is None else "it has too many elements"
    if str(node.attrs.get("reduction", "none")) != "none":
        return "it reduces"
    source = np.arange(prod(sizes))
    source[places.reshape(-1)] = source.size + np.arange(places.size)
    flat = w.int64("flat", [-1])
    both = w.op("Concat", w.op("Reshape", x, flat), w.op("Reshape", updates, flat), axis=0)
    return [w.op("Gather", both, w.int64("source", source.reshape(sizes)), axis=0)]


def _scatter_elements(w: Writer, node: Node) -> Results:
    sizes, indices = _sizes(node.inputs[0]), constant_of(node.inputs[1])
    if sizes is None or indices is None:
        return _unknown(node.inputs[0]) if sizes is None else "its indices are computed while the model runs"
    axis = int(node.attrs.get("axis", 0)) % len(sizes)
    grid: list[Any] = list(np.indices(indices.shape))
    grid[axis] = np.where(indices < 0, indices + sizes[axis], indices)
    return _scattered(w, node, np.ravel_multi_index(grid, sizes), node.inputs[2])


def _scatter_nd(w: Writer, node: Node) -> Results:
    sizes, indices = _sizes(node.inputs[0]), constant_of(node.inputs[1])
    if sizes is None or indices is None:
        return _unknown(node.inputs[0]) if sizes is None else "its indices are computed while the model runs"
    depth = indices.shape[-1]
    counted, rest = sizes[:depth], prod(sizes[depth:])
    wrapped = np.where(indices < 0, indices + np.array(counted), indices)
    rows = np.ravel_multi_index(list(np.moveaxis(wrapped, -1, 0)), counted)
    return _scattered(w, node, rows[..., None] * rest + np.arange(rest), node.inputs[2])


def _counted(w: Writer, size: int, axis: int, rank: int) -> Tensor:
    """0 … size - 1 along an axis."""
    return w.int64("counts", np.arange(size).reshape([-1 if place == axis else 1 for place in range(rank)]))


def _hardmax(w: Writer, node: Node) -> Results:
    x, rank = node.inputs[0], rank_of(node.inputs[0])
    if rank is None:
        return _unknown(x)
    axis = int(node.attrs.get("axis", -1)) % rank
    if not isinstance(x.shape[axis], int | np.integer):
        return _unknown(x)
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


def _trilu(w: Writer, node: Node) -> Results:
    x, shift = node.inputs[0], given(node, 1)
    rank = rank_of(x)
    if rank is None or x.dtype is None:
        return "its rank or its type is unknown"
    rows, columns = (_count_of(w, x, axis) for axis in (rank - 2, rank - 1))
    rows = w.ints("Unsqueeze", rows, w.int64("row", [1]))
    diagonal = rows if shift is None else w.ints("Add", rows, shift)
    inside = w.op("GreaterOrEqual" if node.attrs.get("upper", 1) else "LessOrEqual", columns, diagonal, dtype=bool)
    if np.dtype(x.dtype) == np.dtype(bool):
        return [w.op("And", inside, x, dtype=bool)]
    return [w.op("Where", inside, x, w.constant("outside", np.zeros((), x.dtype)), dtype=x.dtype)]


def _count_of(w: Writer, x: Tensor, axis: int) -> Tensor:
    """0 … n - 1 for the size n of an axis, known or not."""
    if isinstance(x.shape[axis], int | np.integer):
        return w.int64("counts", np.arange(int(x.shape[axis])))
    size = w.ints("Squeeze", w.ints("Shape", x, start=axis, end=axis + 1), w.int64("axis", [0]))
    return w.ints("Range", w.int64("zero", 0), size, w.int64("one", 1))


def _arg_min(w: Writer, node: Node) -> Results:
    return [w.ints("ArgMax", w.op("Neg", node.inputs[0]), **node.attrs)]


def _cum_sum(w: Writer, node: Node) -> Results:
    """A matrix product with a triangle of ones, along the last axis; of integers a sum of what the triangle leaves."""
    x, where, rank = node.inputs[0], constant_of(node.inputs[1]), rank_of(node.inputs[0])
    if where is None or rank is None:
        return "its axis is not constant, or its rank is unknown"
    axis = int(where.reshape(-1)[0]) % rank
    size, reverse, exclusive = x.shape[axis], node.attrs.get("reverse", 0), int(node.attrs.get("exclusive", 0))
    if is_float(x) and isinstance(size, int | np.integer) and 0 < size <= MOST_SUMMANDS:
        triangle = np.triu(np.ones((int(size), int(size))), exclusive)
        return [w.along(x, w.constant("triangle", triangle.T if reverse else triangle), axis, rank)]
    counted = _count_of(w, x, axis)
    each, last = w.ints("Unsqueeze", counted, w.int64("row", [1])), counted
    before = ("Greater" if reverse else "Less") + ("" if exclusive else "OrEqual")
    inside = w.op(before, each, last, dtype=bool)
    if is_float(x):
        return [w.along(x, w.op("Cast", inside, to=1), axis, rank)]
    turn = [place for place in range(rank) if place != axis] + [axis]
    turned = x if axis == rank - 1 else w.op("Transpose", x, dtype=x.dtype, perm=turn)
    apart = w.op("Unsqueeze", turned, w.int64("column", [rank]), dtype=x.dtype)
    kept = w.op("Where", inside, apart, w.constant("outside", np.zeros((), x.dtype)), dtype=x.dtype)
    total = w.op("ReduceSum", kept, w.int64("axes", [rank - 1]), dtype=x.dtype, keepdims=0)
    if axis == rank - 1:
        return [total]
    return [w.op("Transpose", total, dtype=x.dtype, perm=[turn.index(place) for place in range(rank)])]


def _range(w: Writer, node: Node) -> Results:
    """Floats that count from one whole number to another."""
    if not is_float(node.outputs[0]):
        return None
    ends = [_whole(w, tensor) for tensor in node.inputs]
    if any(end is None for end in ends):
        return "its ends are not known to be whole numbers"
    return [w.op("Cast", w.ints("Range", *ends), to=1 if w.dtype == np.float32 else 11)]


def _whole(w: Writer, tensor: Tensor) -> Tensor | None:
    """The int64 number that a float one was made of; None for others."""
    value, source = constant_of(tensor), producer(tensor)
    if value is not None:
        whole = value.size == 1 and float(value.reshape(())).is_integer()
        return w.int64("end", int(value.reshape(()))) if whole else None
    if source is None or source.op != "Cast" or np.dtype(source.inputs[0].dtype).kind not in "iu":
        return None
    inner = source.inputs[0]
    return inner if inner.dtype == np.int64 else w.ints("Cast", inner, to=7)


def _reduce_prod(w: Writer, node: Node) -> Results:
    x, axes, rank = node.inputs[0], given(node, 1), rank_of(node.inputs[0])
    value = None if axes is None else constant_of(axes)
    if rank is None or (axes is not None and value is None):
        return "its axes are not constant, or its rank is unknown"
    named = [] if value is None else value.reshape(-1).tolist()
    if not named and node.attrs.get("noop_with_empty_axes", 0):
        return [x]
    places = sorted({int(axis) % rank for axis in named} or set(range(rank)))
    sizes = [x.shape[place] for place in places]
    if not all(isinstance(size, int | np.integer) and size > 0 for size in sizes) or prod(sizes) > MOST_FACTORS:
        return f"it multiplies along axes whose sizes are not known, or more than {MOST_FACTORS} elements"
    y = x
    for place, size in zip(places, sizes, strict=True):
        parts = [w.op("Gather", y, w.int64("element", [index]), axis=place) for index in range(int(size))]
        y = reduce(lambda total, part: w.op("Mul", total, part), parts)
    return [y if node.attrs.get("keepdims", 1) else w.op("Squeeze", y, w.int64("axes", places))]


def _lp_pool(w: Writer, node: Node) -> Results:
    """The p-th root of sums of powers: an average of them times the size of the window."""
    p = int(node.attrs.get("p", 2))
    size = w.op("Abs", node.inputs[0])
    power = size if p == 1 else w.op("Pow", size, w.constant("power", float(p)))
    if node.op == "GlobalLpPool":
        axes = w.int64("axes", list(range(2, rank_of(node.inputs[0]) or 2)))
        total = w.op("ReduceSum", power, axes, keepdims=1)
    else:
        own = {key: value for key, value in node.attrs.items() if key != "p"}
        mean = w.op("AveragePool", power, count_include_pad=1, **own)
        total = w.op("Mul", mean, w.constant("window", float(prod(node.attrs["kernel_shape"]))))
    return [total if p == 1 else w.op("Pow", total, w.constant("root", 1.0 / p))]


def _centre(w: Writer, node: Node) -> Results:
    """CenterCropPad: a Pad, then a Slice."""
    x, target, sizes = node.inputs[0], constant_of(node.inputs[1]), _sizes(node.inputs[0])
    if target is None or sizes is None:
        return _unknown(x) if sizes is None else "its shape is computed while the model runs"
    axes = [int(axis) % len(sizes) for axis in node.attrs.get("axes", range(len(sizes)))]
    pads, starts, ends = [0] * (2 * len(sizes)), [0] * len(sizes), list(sizes)
    for axis, wanted in zip(axes, target.reshape(-1).tolist(), strict=True):
        missing, surplus = max(wanted - sizes[axis], 0), max(sizes[axis] - wanted, 0)
        pads[axis], pads[axis + len(sizes)] = missing // 2, missing - missing // 2
        starts[axis] = surplus // 2
        ends[axis] = starts[axis] + wanted
    y = w.op("Pad", x, w.int64("pads", pads)) if any(pads) else x
    if ends == sizes and not any(starts):
        return [y]
    every = w.int64("axes", list(range(len(sizes))))
    return [w.op("Slice", y, w.int64("starts", starts), w.int64("ends", ends), every)]


PLACES: dict[str, Rule] = {
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "Hardmax": _hardmax,
    "OneHot": _one_hot,
    "Trilu": _trilu,
    "ArgMin": _arg_min,
    "CumSum": _cum_sum,
    "Range": _range,
    "ReduceProd": _reduce_prod,
    "LpPool": _lp_pool,
    "GlobalLpPool": _lp_pool,
    "CenterCropPad": _centre,
}
