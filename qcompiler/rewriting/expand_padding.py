"""``auto_pad`` over unknown sizes: as pads where they are the same for every size, else as a Pad and a Slice.

With stride s and a kernel of extent k, SAME pads ``t = max((ceil(L / s) - 1) s + k - L, 0)`` elements, half of them
before, the odd one behind (UPPER) or before (LOWER). For s = 1 that is k - 1 whatever L. Else all that may be needed
is padded, and as much of it is cut off again.
"""

from __future__ import annotations

import numpy as np

from qcompiler.graph.ir import Node, Tensor, constant_of
from qcompiler.rewriting.node_writer import Results, Writer, rank_of

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
