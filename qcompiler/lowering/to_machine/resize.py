"""Instructions that resize images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qcompiler.graph.ir import Constant, Node, Tensor
from qcompiler.lowering.to_machine.emitter import Emitter, output_fields
from qcompiler.lowering.to_machine.products import image
from qcompiler.lowering.to_machine.views import Handle, View, channels_last
from qcompiler.shapes.dims import as_dim, to_nested


def emit_repeat(emitter: Emitter, node: Node) -> None:
    """Every element ``repeats`` times along each axis: one copy from a view with stride 0 behind every axis."""
    x, repeats = emitter.view(node.inputs[0]), emitter.ints(node.inputs[1])
    y = emitter.new(node.outputs[0], x.order)
    axes = [axis for axis, count in enumerate(repeats) if count != 1]
    source, target = x, y
    for axis in reversed(axes):
        source = _split(x.shape[axis], 0, source, axis, repeats[axis], source.strides[axis])
        target = _split(
            x.shape[axis],
            target.strides[axis],
            target,
            axis,
            repeats[axis],
            as_dim(target.strides[axis] * repeats[axis]),
        )
    order = [new for axis in (y.order or range(y.rank)) for new in _places(axis, axes)]
    emitter.move(source, target, node.name, tuple(order))


def _split(size: object, inner: object, view: View, axis: int, count: int, outer: object) -> View:
    """``view`` with ``axis`` as two: ``size`` elements ``outer`` apart, each ``count`` times ``inner`` apart."""
    shape = (*view.shape[:axis], size, count, *view.shape[axis + 1 :])
    strides = (*view.strides[:axis], outer, inner, *view.strides[axis + 1 :])
    return replace(view, shape=shape, strides=strides, order=None)


def _places(axis: int, split: list[int]) -> list[int]:
    """Where an axis stands when the axes of ``split`` have become two."""
    place = axis + sum(other < axis for other in split)
    return [place, place + 1] if axis in split else [place]


def emit_resize_linear(emitter: Emitter, node: Node) -> None:
    """ResizeLinear."""
    order = channels_last(len(emitter.shape(node.inputs[0])))
    x = emitter.in_order(emitter.view(node.inputs[0]), order, node.name)
    y = emitter.new(node.outputs[0], order)
    names = ("h_low", "h_high", "h_weight", "w_low", "w_high", "w_weight")
    tables = {name: _table(emitter, tensor, node.name) for name, tensor in zip(names, node.inputs[1:], strict=True)}
    batch, in_h, in_w, in_c = (to_nested(size) for size in image(x))
    _, out_h, out_w, _ = (to_nested(size) for size in image(y))
    emitter.program.emit(
        "resize_linear",
        node=node.name,
        x=x.handle,
        y=y.handle,
        batch=batch,
        in_h=in_h,
        in_w=in_w,
        in_c=in_c,
        out_h=out_h,
        out_w=out_w,
        x_zp=int(node.attrs["x_zp"]),
        m=int(node.attrs["m"]),
        n=int(node.attrs["n"]),
        **tables,
        **output_fields(node),
    )


def _table(emitter: Emitter, tensor: Tensor, node: str) -> Handle:
    """Places or weights of an axis, int32: a constant, or what the program computes of symbolic sizes."""
    if isinstance(tensor, Constant):
        return emitter.program.constant(np.asarray(tensor.values).astype(np.int32))
    return emitter.in_order(emitter.view(tensor), None, node).handle
