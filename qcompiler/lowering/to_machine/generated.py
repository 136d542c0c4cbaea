"""Tensors that are made from symbolic sizes alone, as data: filled ones, and positions counted from 0."""

from __future__ import annotations

import numpy as np
import sympy

from qcompiler.errors import UnsupportedError
from qcompiler.graph.ir import Node
from qcompiler.lowering.to_machine.emitter import Emitter
from qcompiler.lowering.to_machine.views import View
from qcompiler.runtime.instructions.opcodes import Binary
from qcompiler.shapes.dims import as_dim, ceil_div, to_nested

_COLUMNS, _ROWS = 256, 1 << 14


def emit_filled(emitter: Emitter, node: Node) -> None:
    """ConstantOfShape: one value everywhere."""
    fill = node.attrs.get("value")
    value = 0 if fill is None else int(np.asarray(fill.values).reshape(-1)[0])
    y = emitter.new(node.outputs[0])
    emitter.program.emit("fill", node=node.name, y=y.handle, count=to_nested(y.count), value=value)


def emit_range(emitter: Emitter, node: Node) -> None:
    """Range in steps of 1: ``256 * i + j`` in rows i and columns j, of which the wanted part is taken; the machine refuses more than 2^22."""
    (start,), (delta,) = emitter.ints(node.inputs[0]), emitter.ints(node.inputs[2])
    if delta != 1 or not sympy.sympify(start).is_nonnegative:
        raise UnsupportedError("its length is symbolic; then only steps of 1 from 0 on have an integer form")
    (count,), kind = emitter.shape(node.outputs[0]), np.dtype(node.outputs[0].dtype)
    shape = (ceil_div(as_dim(start + count), _COLUMNS), _COLUMNS)
    high = View.dense(emitter.program.constant(np.arange(_ROWS, dtype=kind) * kind.type(_COLUMNS)), (_ROWS,))
    low = View.dense(emitter.program.constant(np.arange(_COLUMNS, dtype=kind)), (_COLUMNS,))
    parts = [high.sliced(0, 0, shape[0], 1).with_ones([1]).broadcast(shape), low.broadcast(shape)]
    whole = emitter.scratch(shape, kind)
    dims, (a_strides, b_strides) = emitter.walk(parts, whole, node.name)
    emitter.program.emit(
        "binary", node=node.name, kind=int(Binary.ADD), a=parts[0].handle, b=parts[1].handle, y=whole.handle, dims=dims, a_m=1, b_m=1,
        a_strides=a_strides, b_strides=b_strides,
    )  # fmt: skip
    line = View.dense(whole.handle, (as_dim(shape[0] * _COLUMNS),))
    emitter.bind(node.outputs[0], line.sliced(0, start, count, 1))
