"""Movers: most only change a view; the rest are strided copies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from qcompiler.errors import UnsupportedError
from qcompiler.graph.ir import Constant, Node
from qcompiler.lowering.factors import DYNAMIC_LIMIT
from qcompiler.lowering.to_machine.emitter import Emitter
from qcompiler.lowering.to_machine.views import View, is_one
from qcompiler.shapes.dims import Dim, as_dim, maximum, minimum, same, to_nested
from qcompiler.shapes.rules import sliced_dim


def emit_transpose(emitter: Emitter, node: Node) -> None:
    """A change of the view."""
    emitter.bind(node.outputs[0], emitter.view(node.inputs[0]).transposed([int(axis) for axis in node.attrs["perm"]]))


def emit_reshape(emitter: Emitter, node: Node) -> None:
    """Reshape and Flatten: elements in the order of their axes, seen under another shape."""
    shape = emitter.shape(node.outputs[0])
    emitter.bind(node.outputs[0], reshaped(emitter, emitter.view(node.inputs[0]), shape, node.name))


def reshaped(emitter: Emitter, view: View, shape: tuple[Dim, ...], node: str) -> View:
    """``view`` under another shape; copied only where its elements do not lie in order."""
    if _wide(view.shape) == _wide(shape):
        return _with_ones(view, shape)
    dense = emitter.in_order(view, None, node)
    return View.dense(dense.handle, shape)


def _wide(shape: tuple[Dim, ...]) -> tuple[Dim, ...]:
    return tuple(size for size in shape if not is_one(size))


def _with_ones(view: View, shape: tuple[Dim, ...]) -> View:
    """Only axes of size 1 come and go."""
    bare = view.without([axis for axis in range(view.rank) if is_one(view.shape[axis])])
    return bare.with_ones([axis for axis in range(len(shape)) if is_one(shape[axis])])


def emit_squeeze(emitter: Emitter, node: Node) -> None:
    """A change of the view. An axis of symbolic size is taken for 1, which binding the program checks."""
    view, axes = emitter.view(node.inputs[0]), emitter.ints(node.inputs[1])
    for axis in axes:
        if not is_one(view.shape[axis]):
            view = _assume_one(emitter, view, axis, node.name)
    emitter.bind(node.outputs[0], view.without(axes))


def _assume_one(emitter: Emitter, view: View, axis: int, node: str) -> View:
    """``view`` with size 1 along ``axis``."""
    emitter.require_equal(view.shape[axis], 1, node)
    shape = tuple(1 if i == axis else other for i, other in enumerate(view.shape))
    return replace(view, shape=shape) if view.order is None else View.dense(view.handle, shape, view.order)


def emit_unsqueeze(emitter: Emitter, node: Node) -> None:
    """A change of the view."""
    emitter.bind(node.outputs[0], emitter.view(node.inputs[0]).with_ones(emitter.ints(node.inputs[1])))


def emit_slice(emitter: Emitter, node: Node) -> None:
    """A change of the view."""
    starts, ends, axes, steps = (emitter.ints(tensor) for tensor in node.inputs[1:])
    view = emitter.view(node.inputs[0])
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = view.shape[axis]
        view = view.sliced(axis, _first(start, size, step), sliced_dim(size, start, end, step), step)
    emitter.bind(node.outputs[0], view)


def _first(start: Any, size: Dim, step: int) -> Dim:
    """The position a slice begins at."""
    if isinstance(start, int) and start < 0:
        start = as_dim(start + size)
    if step < 0:
        return minimum(start, as_dim(size - 1))
    return start if isinstance(start, int) and start >= 0 else maximum(start, 0)


def emit_expand(emitter: Emitter, node: Node) -> None:
    """Stride 0."""
    emitter.bind(
        node.outputs[0], emitter.broadcast(emitter.view(node.inputs[0]), emitter.shape(node.outputs[0]), node.name)
    )


def emit_tile(emitter: Emitter, node: Node) -> None:
    """For every repeated axis one of stride 0 before it, and a copy."""
    view = emitter.view(node.inputs[0])
    for axis, count in enumerate(emitter.ints(node.inputs[1])):
        if is_one(count):
            continue
        wide = view.with_ones([axis])
        repeated = wide.broadcast((*wide.shape[:axis], count, *wide.shape[axis + 1 :]))
        shape = (*view.shape[:axis], as_dim(view.shape[axis] * count), *view.shape[axis + 1 :])
        view = View.dense(emitter.in_order(repeated, None, node.name).handle, shape)
    emitter.bind(node.outputs[0], view)


def emit_concat(emitter: Emitter, node: Node) -> None:
    """One copy for each input that was not written in place, into a result that lies like the first dense one."""
    axis, parts = int(node.attrs["axis"]), [emitter.view(tensor) for tensor in node.inputs]
    order = next((part.order for part in parts if part.order is not None and emitter.is_buffer(part)), None)
    y = emitter.placed(node.outputs[0]) or emitter.new(node.outputs[0], order)
    start: Dim = 0
    for part in parts:
        if part.handle is not y.handle:  # else it was written there
            emitter.move(part, y.sliced(axis, start, part.shape[axis], 1), node.name, y.order)
        start = as_dim(start + part.shape[axis])


def emit_gather(emitter: Emitter, node: Node) -> None:
    """One constant index is a slice; else an instruction."""
    axis, x = int(node.attrs["axis"]), emitter.view(node.inputs[0])
    indices = node.inputs[1]
    if isinstance(indices, Constant) and indices.values.size == 1 and indices.values.ndim == 0:
        index = int(indices.values)
        start = index if index >= 0 else as_dim(x.shape[axis] + index)
        return emitter.bind(node.outputs[0], x.sliced(axis, start, 1, 1).without([axis]))
    x = emitter.in_order(x, None, node.name)
    where = emitter.in_order(emitter.view(indices), None, node.name)
    y = emitter.new(node.outputs[0])
    outer, inner = (View.dense(x.handle, part).count for part in (x.shape[:axis], x.shape[axis + 1 :]))
    return emitter.program.emit(
        "gather",
        node=node.name,
        x=x.handle,
        indices=where.handle,
        y=y.handle,
        outer=to_nested(outer),
        axis=to_nested(x.shape[axis]),
        inner=to_nested(inner),
        count=to_nested(where.count),
    )


def emit_scatter(emitter: Emitter, node: Node) -> None:
    """Scatter: elements of a vector at computed places."""
    x, indices, updates = (emitter.in_order(emitter.view(tensor), None, node.name) for tensor in node.inputs)
    y = emitter.new(node.outputs[0])
    emitter.program.emit(
        "scatter", node=node.name, x=x.handle, indices=indices.handle, updates=updates.handle, y=y.handle,
        axis=to_nested(x.count), count=to_nested(indices.count), inner=1,
    )  # fmt: skip


def emit_depth_to_space(emitter: Emitter, node: Node) -> None:
    """Reshape, Transpose, Reshape; one copy."""
    x, block = emitter.view(node.inputs[0]), int(node.attrs["blocksize"])
    n, c, h, w = x.shape
    if node.op == "SpaceToDepth":
        split, perm = (n, c, _exact(h, block), block, _exact(w, block), block), (0, 3, 5, 1, 2, 4)
    elif node.attrs["mode"] == "CRD":
        split, perm = (n, _exact(c, block * block), block, block, h, w), (0, 1, 4, 2, 5, 3)
    else:
        split, perm = (n, block, block, _exact(c, block * block), h, w), (0, 3, 4, 1, 5, 2)
    apart = reshaped(emitter, x, split, node.name).transposed(perm)
    emitter.bind(node.outputs[0], reshaped(emitter, apart, emitter.shape(node.outputs[0]), node.name))


def _exact(size: Dim, divisor: int) -> Dim:
    quotient = as_dim(size / divisor) if not isinstance(size, int) else size // divisor
    if not same(as_dim(quotient * divisor), size):
        raise UnsupportedError(f"the size {size} is not known to be a multiple of {divisor}")
    return quotient


def emit_pad(emitter: Emitter, node: Node) -> None:
    """Constant padding fills and copies; reflected and repeated edges are copied axis by axis."""
    pads, x = emitter.ints(node.inputs[1]), emitter.view(node.inputs[0])
    before, after = pads[: x.rank], pads[x.rank :]
    for axis in range(x.rank):
        cut = (max(-before[axis], 0), max(-after[axis], 0))
        x = x.sliced(axis, cut[0], as_dim(x.shape[axis] - sum(cut)), 1)
    before, after = ([max(int(pad), 0) for pad in part] for part in (before, after))
    if node.attrs["mode"] == "constant":
        _pad_constant(emitter, node, x, before)
        return
    for axis in range(x.rank):
        if before[axis] or after[axis]:
            x = _pad_axis(emitter, node, x, axis, (before[axis], after[axis]))
    emitter.bind(node.outputs[0], x)


def _pad_constant(emitter: Emitter, node: Node, x: View, before: list[int]) -> None:
    y = emitter.new(node.outputs[0], x.order)
    emitter.program.emit(
        "fill", node=node.name, y=y.handle, count=to_nested(y.count), value=int(np.asarray(node.inputs[2].values))
    )
    inside = y
    for axis in range(x.rank):
        inside = inside.sliced(axis, before[axis], x.shape[axis], 1)
    emitter.move(x, inside, node.name, y.order)


def _pad_axis(emitter: Emitter, node: Node, x: View, axis: int, pads: tuple[int, int]) -> View:
    size, (before, after) = x.shape[axis], pads
    shape = list(x.shape)
    shape[axis] = as_dim(size + before + after)
    y = emitter.scratch(shape, x.handle.element, x.order)
    last = as_dim(size - 1)
    emitter.move(x, y.sliced(axis, before, size, 1), node.name, y.order)
    reflect = node.attrs["mode"] == "reflect"
    for count, place, start in (
        (before, 0, before if reflect else 0),
        (after, as_dim(size + before), as_dim(last - 1) if reflect else last),
    ):
        if count:
            strip = x.sliced(axis, start, count, -1 if reflect else 0)
            emitter.move(strip, y.sliced(axis, place, count, 1), node.name, y.order)
    return y


def emit_range(emitter: Emitter, node: Node) -> None:
    """A part of the numbers from 0 on, which the program holds as int16: symbolic sizes say which part."""
    start, _, delta = (emitter.ints(tensor)[0] for tensor in node.inputs)
    if not isinstance(delta, int) or delta < 1:
        raise UnsupportedError(f"its step is {delta}; the machine counts upwards by a constant")
    size = emitter.shape(node.outputs[0])[0]
    emitter.require_at_most(as_dim(start + size * delta), DYNAMIC_LIMIT, node.name)
    numbers = View.dense(emitter.program.constant(np.arange(DYNAMIC_LIMIT, dtype=np.int16)), (DYNAMIC_LIMIT,))
    part = emitter.copied(numbers.sliced(0, start, size, delta), node.name)
    y = emitter.new(node.outputs[0])
    emitter.program.emit("cast", node=node.name, x=part.handle, y=y.handle, count=to_nested(y.count))


def emit_filled(emitter: Emitter, node: Node) -> None:
    """ConstantOfShape: one number, stride 0."""
    given = node.attrs.get("value")
    number = np.asarray(0 if given is None else getattr(given, "values", given), node.outputs[0].dtype).reshape(-1)
    shape = emitter.shape(node.outputs[0])
    one = (
        View.dense(emitter.program.constant(number), (1,) * len(shape))
        if shape
        else View.dense(emitter.program.constant(number.reshape(())), ())
    )
    emitter.bind(node.outputs[0], emitter.broadcast(one, shape, node.name))


def emit_shape(_emitter: Emitter, _node: Node) -> None:
    """Shape arithmetic that is needed as data has no instruction."""
    raise UnsupportedError("its value depends on symbolic sizes and is read as data; fix them: --dim NAME=SIZE")
