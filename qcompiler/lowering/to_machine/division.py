"""Division of integers by the machine's rounding quotient, for divisors that are known to be positive.

floor(a / b) = floor((2a + 1) / 2b) = round((2a - b + 1) / 2b)             ties up
a / b        = max(floor(a / b), 0) - max(floor(-a / b), 0)                ONNX's Div, towards zero
a mod b      = a - b * floor(a / b)                                        ONNX's Mod, with the sign of b
"""

from __future__ import annotations

from typing import Any

import numpy as np
import sympy

from qcompiler.errors import UnsupportedError
from qcompiler.graph.ir import Constant, Node, Tensor
from qcompiler.lowering.to_machine.emitter import Emitter
from qcompiler.lowering.to_machine.views import View
from qcompiler.runtime.instructions.opcodes import Binary

_WIDE = {"lo": -(1 << 62), "hi": 1 << 62}


def emit_divide(emitter: Emitter, node: Node) -> None:
    """Div of integers."""
    a, b = _operands(emitter, node)
    up = _floor(emitter, node, a, b, 1)
    down = _floor(emitter, node, a, b, -1)
    y = emitter.new(node.outputs[0])
    zero = _number(emitter, 0, a)
    more, less = (_apply(emitter, node, Binary.MAX, part, zero) for part in (up, down))
    _apply(emitter, node, Binary.ADD, more, less, y, b_m=-1)


def emit_remainder(emitter: Emitter, node: Node) -> None:
    """Mod of integers, with the sign of the divisor, or with ``fmod`` that of the dividend."""
    if node.attrs.get("fmod", 0):
        raise UnsupportedError("its attribute fmod has no integer form")
    a, b = _operands(emitter, node)
    whole = _apply(emitter, node, Binary.MUL, _floor(emitter, node, a, b, 1), b)
    _apply(emitter, node, Binary.ADD, a, whole, emitter.new(node.outputs[0]), b_m=-1)


def _operands(emitter: Emitter, node: Node) -> tuple[View, View]:
    """Dense views of both, of the result's shape."""
    if not _is_positive(emitter, node.inputs[1]):
        raise UnsupportedError(f"its divisor '{node.inputs[1].name}' is not known to be positive")
    shape = emitter.shape(node.outputs[0])
    dense = [emitter.in_order(emitter.view(tensor), None, node.name) for tensor in node.inputs]
    a, b = (emitter.broadcast(view, shape, node.name) for view in dense)
    return a, b


def _is_positive(emitter: Emitter, tensor: Tensor) -> bool:
    if isinstance(tensor, Constant):
        return bool(np.all(np.asarray(tensor.values) > 0))
    value = emitter.known.values.get(tensor.name)
    return value is not None and all(bool(sympy.sympify(item).is_positive) for item in value.ints())


def _number(emitter: Emitter, value: int, like: View) -> View:
    """One number, repeated to a shape."""
    one = View.dense(emitter.program.constant(np.array(value, np.int64)), ())
    return one.broadcast(like.shape)


def _floor(emitter: Emitter, node: Node, a: View, b: View, sign: int) -> View:
    """``floor(sign * a / b)``."""
    twice = _apply(emitter, node, Binary.ADD, a, b, a_m=2 * sign, b_m=-1, y_zp=1)
    return _apply(emitter, node, Binary.DIV, twice, b, n=1)


def _apply(
    emitter: Emitter, node: Node, kind: Binary, a: View, b: View, y: View | None = None, **fields: Any
) -> View:
    """The int64 result of one instruction, or ``y`` filled by it."""
    result = emitter.scratch(a.shape, np.int64) if y is None else y
    dims, (a_strides, b_strides) = emitter.walk([a, b], result, node.name)
    emitter.program.emit(
        "binary", node=node.name, kind=int(kind), a=a.handle, b=b.handle, y=result.handle, dims=dims,
        a_strides=a_strides, b_strides=b_strides, **_WIDE, **fields,
    )  # fmt: skip
    return result
