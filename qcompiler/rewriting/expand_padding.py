"""``auto_pad`` over unknown sizes: as pads where they are the same for every size, else as a Pad and a Slice. Pad by
amounts that the model computes from sizes, as fills joined to what is left of the data.

With stride s and a kernel of extent k, SAME pads ``t = max((ceil(L / s) - 1) s + k - L, 0)`` elements, half of them
before, the odd one behind (UPPER) or before (LOWER). For s = 1 that is k - 1 whatever L. Else all that may be needed
is padded, and as much of it is cut off again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.graph.ir import Constant, Node, Tensor, constant_of
from qcompiler.rewriting.node_writer import Results, Writer, given, rank_of

_SAME = ("SAME_UPPER", "SAME_LOWER")


def _kernel(node: Node) -> list[int] | None:
    if "kernel_shape" in node.attrs:
        return [int(size) for size in node.attrs["kernel_shape"]]
    weight = constant_of(node.inputs[1]) if node.op == "Conv" else None
    return None if weight is None else list(weight.shape[2:])


def _pads_of(size: int | None, stride: int, extent: int, mode: str) -> tuple[int, int] | None:
    """Elements (before, behind) where they are known."""
    if stride == 1:
        total = extent - 1
    elif size is not None:
        total = max((-(-size // stride) - 1) * stride + extent - size, 0)
    else:
        return None
    small, large = total // 2, total - total // 2
    return (small, large) if mode == "SAME_UPPER" else (large, small)


def explicit_padding(w: Writer, node: Node) -> Results:
    """Conv, MaxPool and AveragePool with ``pads`` in place of ``auto_pad``."""
    mode, x = node.attrs.get("auto_pad", "NOTSET"), node.inputs[0]
    rank, kernel = rank_of(x), _kernel(node)
    if mode not in _SAME or (len(node.outputs) > 1 and node.outputs[1].name):
        return None
    if rank is None or kernel is None:
        return f"the rank of '{x.name}' or its kernel is unknown"
    sizes = [int(size) if isinstance(size, int | np.integer) else None for size in x.shape[2:]]
    if all(size is not None for size in sizes):
        return None
    strides, dilations = (list(node.attrs.get(name, [1] * len(kernel))) for name in ("strides", "dilations"))
    extents = [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)]
    pads = [_pads_of(size, stride, extent, mode) for size, stride, extent in zip(sizes, strides, extents, strict=True)]
    attrs = {key: value for key, value in node.attrs.items() if key not in ("auto_pad", "pads")}
    for axis, known in enumerate(pads):
        if known is None and node.op == "AveragePool":
            return "it averages over padding that depends on a symbolic size"
        if known is None:
            x = _padded(w, x, axis + 2, (strides[axis], extents[axis]), mode, node.op)
    known_pads = [pair or (0, 0) for pair in pads]
    attrs["pads"] = [pair[side] for side in (0, 1) for pair in known_pads]
    return [w.op(node.op, x, *node.inputs[1:], **attrs)]


def _padded(w: Writer, x: Tensor, axis: int, window: tuple[int, int], mode: str, op: str) -> Tensor:
    """``x`` padded along an axis of symbolic size L, as far as its windows reach."""
    stride, extent = window
    most = extent - 1
    rank = rank_of(x) or 0
    widths = [0] * (2 * rank)
    widths[axis] = widths[axis + rank] = most
    fill = w.constant("fill", float(np.finfo(np.float32).min) if op == "MaxPool" else 0.0)
    wide = w.op("Pad", x, w.int64("pads", widths), fill, mode="constant")
    wide.shape = [None] * rank
    length, step, one = w.ints("Shape", x, start=axis, end=axis + 1), w.int64("stride", [stride]), w.int64("one", [1])
    windows = w.ints("Div", w.ints("Add", length, w.int64("round_up", [stride - 1])), step)
    reach = w.ints("Add", w.ints("Mul", w.ints("Sub", windows, one), step), w.int64("extent", [extent]))
    total = w.ints("Max", w.ints("Sub", reach, length), w.int64("none", [0]))
    half = w.ints("Div", total, w.int64("two", [2]))
    before = half if mode == "SAME_UPPER" else w.ints("Sub", total, half)
    start = w.ints("Sub", w.int64("most", [most]), before)
    cut = w.op("Slice", wide, start, w.ints("Add", start, reach), w.int64("axes", [axis]))
    cut.shape = [None] * rank
    return cut


def computed_padding(w: Writer, node: Node) -> Results:
    """Pad by computed amounts, negative ones included, along the axes where the algebra of sizes finds any."""
    x, amounts = node.inputs[0], given(node, 1)
    if amounts is None or constant_of(amounts) is not None:
        return None
    rank, axes, fill = rank_of(x), _axes_of(node), _fill_of(node)
    if rank is None or axes is None:
        return f"the rank of '{x.name}' or its axes are unknown"
    if node.attrs.get("mode", "constant") not in ("constant", b"constant") or fill is None:
        return "it pads by computed amounts, and not with a constant"
    places = [axis % rank for axis in axes] or list(range(rank))
    known = w.known(amounts)
    if known is None:
        return "it pads by amounts that do not follow from sizes"
    value = Constant("value", fill.astype(x.dtype))
    for position, axis in enumerate(places):
        sides = position, position + len(places)
        if [known[side] for side in sides] != [0, 0]:
            x = _between(w, x, axis, [_amount(w, amounts, side, known[side]) for side in sides], value)
    return [x]


def _axes_of(node: Node) -> list[int] | None:
    """Its axes, none for all of them; None where they are computed."""
    axes = given(node, 3)
    values = np.zeros(0) if axes is None else constant_of(axes)
    return None if values is None else [int(axis) for axis in values.reshape(-1)]


def _fill_of(node: Node) -> NDArray[Any] | None:
    """What is put around, as an array of one element; None where it is computed."""
    fill = given(node, 2)
    value = np.zeros(1) if fill is None else constant_of(fill)
    return None if value is None else value.reshape(1)


def _amount(w: Writer, amounts: Tensor, place: int, known: int | None) -> Tensor:
    """An amount as a vector of one element."""
    if known is not None:
        return w.int64("amount", [known])
    amount = w.ints("Slice", amounts, w.int64("place", [place]), w.int64("next", [place + 1]), w.int64("axis", [0]))
    amount.shape = [1]
    return amount


def _between(w: Writer, x: Tensor, axis: int, amounts: list[Tensor], value: Constant) -> Tensor:
    """``x`` between as many elements as ``amounts`` say, or without so many where these are negative."""
    none, size = w.int64("none", [0]), w.ints("Shape", x, start=axis, end=axis + 1)
    cut = [w.ints("Max", w.ints("Sub", none, amount), none) for amount in amounts]
    left = w.op("Slice", x, cut[0], w.ints("Sub", size, cut[1]), w.int64("axes", [axis]), dtype=x.dtype)
    fills = [None if constant_of(amount) == 0 else _filled(w, x, axis, amount, value) for amount in amounts]
    parts = [part for part in (fills[0], left, fills[1]) if part is not None]
    joined = w.op("Concat", *parts, dtype=x.dtype, axis=axis)
    joined.shape = left.shape = [None if place == axis else size for place, size in enumerate(x.shape)]
    return joined


def _filled(w: Writer, x: Tensor, axis: int, amount: Tensor, value: Constant) -> Tensor:
    """``amount`` elements along an axis, none where it is negative, of a tensor that is like ``x`` otherwise."""
    rank = len(x.shape)
    sizes = [w.ints("Shape", x, start=start, end=end) for start, end in ((0, axis), (axis + 1, rank)) if start < end]
    sizes.insert(min(axis, 1), w.ints("Max", amount, w.int64("none", [0])))
    for vector, length in zip(sizes, [axis, 1, rank - axis - 1] if axis else [1, rank - 1], strict=False):
        vector.shape = [length]
    shape = w.ints("Concat", *sizes, axis=0)
    shape.shape = [rank]
    filled = w.op("ConstantOfShape", shape, dtype=x.dtype, value=value)
    filled.shape = [None if place == axis else size for place, size in enumerate(x.shape)]
    return filled
