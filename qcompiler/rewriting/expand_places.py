"""Operators of places along an axis, and of windows: comparisons of counted places, sums and products.

Trilu                  a Where with a constant triangle, or one made of Range
CumSum(x)              x times a triangle of ones, or a sum of what one made of Range leaves
Range of whole floats  Range of integers, then a Cast: how many there are must not hang on a grid
ReduceProd             a product that is written out
LpPool                 a root of an average of powers
CenterCropPad          a Pad, then a Slice
"""

from __future__ import annotations

from functools import reduce
from math import prod

import numpy as np

from qcompiler.graph.ir import Node, Tensor, constant_of, is_float, producer
from qcompiler.rewriting.expand_indices import counts_of, size_of, sizes_of, unknown_sizes
from qcompiler.rewriting.expand_padding import computed_padding
from qcompiler.rewriting.node_writer import Results, Rule, Writer, given, rank_of

MOST_FACTORS = 32
"""Most elements of a product that is written out."""
MOST_SUMMANDS = 2048
"""Longest axis of a running sum: the square of it is a weight."""


def _trilu(w: Writer, node: Node) -> Results:
    x, shift = node.inputs[0], given(node, 1)
    rank = rank_of(x)
    if rank is None or x.dtype is None:
        return "its rank or its type is unknown"
    rows, columns = (counts_of(w, size_of(w, x, axis)) for axis in (rank - 2, rank - 1))
    rows = w.ints("Unsqueeze", rows, w.int64("row", [1]))
    diagonal = rows if shift is None else w.ints("Add", rows, shift)
    inside = w.op("GreaterOrEqual" if node.attrs.get("upper", 1) else "LessOrEqual", columns, diagonal, dtype=bool)
    if np.dtype(x.dtype) == np.dtype(bool):
        return [w.op("And", inside, x, dtype=bool)]
    return [w.op("Where", inside, x, w.constant("outside", np.zeros((), x.dtype)), dtype=x.dtype)]


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
    counted = counts_of(w, size_of(w, x, axis))
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
    x, target, sizes = node.inputs[0], constant_of(node.inputs[1]), sizes_of(node.inputs[0])
    if target is None or sizes is None:
        return unknown_sizes(x) if sizes is None else "its shape is computed while the model runs"
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
    "Trilu": _trilu,
    "CumSum": _cum_sum,
    "Range": _range,
    "ReduceProd": _reduce_prod,
    "LpPool": _lp_pool,
    "GlobalLpPool": _lp_pool,
    "CenterCropPad": _centre,
    "Pad": computed_padding,
}
