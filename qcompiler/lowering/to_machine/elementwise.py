"""Instructions of the elementwise operators and of the program's borders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from qcompiler.graph.ir import Node
from qcompiler.lowering.to_machine.emitter import Emitter, output_fields
from qcompiler.lowering.to_machine.views import Order, View, product
from qcompiler.runtime.instructions.opcodes import Binary, Comparison, Logic
from qcompiler.runtime.program.contents import NO_FILLS, Fills, Labels
from qcompiler.shapes.dims import to_nested

_BINARY = {"Add": Binary.ADD, "Mul": Binary.MUL, "Div": Binary.DIV, "Min": Binary.MIN, "Max": Binary.MAX}
_INTEGER_BINARY = {
    "IntegerAdd": (Binary.ADD, 1, 1),
    "IntegerSub": (Binary.ADD, 1, -1),
    "IntegerMul": (Binary.MUL, 1, 1),
    "IntegerMin": (Binary.MIN, 1, 1),
    "IntegerMax": (Binary.MAX, 1, 1),
}


def emit_quantize(emitter: Emitter, node: Node) -> None:
    """A float input, quantized at the border."""
    view = emitter.new(node.outputs[0])
    scale, zero, axis = _border_grid(node)
    emitter.program.input(
        node.inputs[0].name,
        emitter.buffer_of(view),
        node.inputs[0].dtype,
        emitter.nested(view.shape),
        scale,
        zero,
        axis,
    )


def emit_label(emitter: Emitter, node: Node) -> None:
    """An input of strings, of which the border makes numbers."""
    view, attrs = emitter.new(node.outputs[0]), node.attrs
    labels = Labels(tuple(attrs["keys"]), tuple(attrs["numbers"]), int(attrs["other"]))
    shape = emitter.nested(view.shape)
    emitter.program.input(node.inputs[0].name, emitter.buffer_of(view), "str", shape, labels=labels)


def _border_grid(node: Node) -> tuple[Any, Any, int | None]:
    """Scale, zero point and None, or those of the columns along an axis."""
    if "axis" not in node.attrs:
        return float(node.attrs["scale"]), int(node.attrs["zp"]), None
    return list(node.attrs["scale"]), list(node.attrs["zp"]), int(node.attrs["axis"])


def emit_dequantize(emitter: Emitter, node: Node) -> None:
    """A float output, dequantized at the border."""
    _emit_output(emitter, node, node.outputs[0].dtype, *_border_grid(node), fills=node.attrs.get("fills", NO_FILLS))


def emit_identity(emitter: Emitter, node: Node) -> None:
    """An integer output."""
    _emit_output(emitter, node, node.outputs[0].dtype, None, 0, None)


def _emit_output(
    emitter: Emitter, node: Node, dtype: Any, scale: Any, zero: Any, axis: int | None, fills: Fills = NO_FILLS
) -> None:
    source = emitter.view(node.inputs[0])
    view = source if emitter.is_buffer(source) else emitter.copied(source, node.name)
    view = emitter.in_order(view, None, node.name)
    emitter.program.output(
        node.outputs[0].name, emitter.buffer_of(view), dtype, emitter.nested(view.shape), scale, zero, axis, fills
    )
    emitter.bind(node.outputs[0], view)


def _unary(emitter: Emitter, node: Node, opcode: str, **fields: Any) -> None:
    x, order = emitter.anyhow_dense(emitter.view(node.inputs[0]), node.name)
    y = emitter.new(node.outputs[0], order)
    emitter.program.emit(opcode, node=node.name, x=x.handle, y=y.handle, count=to_nested(x.count), **fields)


def emit_table(emitter: Emitter, node: Node) -> None:
    """Table."""
    _unary(emitter, node, "table", table=np.asarray(node.inputs[1].values))


def emit_piecewise(emitter: Emitter, node: Node) -> None:
    """PiecewiseLinear."""
    base, slope = (np.asarray(tensor.values) for tensor in node.inputs[1:])
    numbers = {name: int(node.attrs[name]) for name in ("first", "width_bits", "fraction", "lo", "hi")}
    _unary(emitter, node, "piecewise", base=base, slope=slope, segments=len(base), **numbers)


def emit_requantize(emitter: Emitter, node: Node) -> None:
    """Requantize and QuantizeInteger."""
    x, order = emitter.anyhow_dense(emitter.view(node.inputs[0]), node.name)
    y = emitter.place(node.outputs[0], order)
    fields = {
        "x_zp": int(node.attrs.get("x_zp", 0)),
        "m": int(node.attrs["m"]),
        "n": int(node.attrs["n"]),
        **output_fields(node),
    }
    if y.order is not None:
        emitter.program.emit("requant", node=node.name, x=x.handle, y=y.handle, count=to_nested(x.count), **fields)
        return
    lines = product([y.shape[axis] for axis in order[:-1]])
    emitter.program.emit(
        "requant", node=node.name, x=x.handle, y=y.handle, count=to_nested(y.shape[order[-1]]), lines=to_nested(lines),
        y_pitch=to_nested(y.strides[order[-2]]), y_offset=to_nested(y.offset), **fields,
    )


def emit_cast(emitter: Emitter, node: Node) -> None:
    """Cast between integer types."""
    source = emitter.view(node.inputs[0])
    if np.dtype(node.inputs[0].dtype) == np.dtype(node.outputs[0].dtype):
        return emitter.bind(node.outputs[0], source)
    return _unary(emitter, node, "cast")


def emit_binary(emitter: Emitter, node: Node) -> None:
    """Add, Mul, Div, Min and Max of codes."""
    attrs = node.attrs
    fields = {
        "a_zp": int(attrs["a_zp"]),
        "b_zp": int(attrs["b_zp"]),
        "a_m": int(attrs.get("a_m", attrs.get("m", 1))),
        "n": int(attrs["n"]),
    }
    if "b_m" in attrs:
        fields["b_m"] = int(attrs["b_m"])
    _joint(emitter, node, "binary", "ab", kind=int(_BINARY[node.op]), **fields, **output_fields(node))


def emit_integer_binary(emitter: Emitter, node: Node) -> None:
    """Arithmetic of integers."""
    kind, a_m, b_m = _INTEGER_BINARY[node.op]
    _joint(emitter, node, "binary", "ab", kind=int(kind), a_m=a_m, b_m=b_m)


def emit_where(emitter: Emitter, node: Node) -> None:
    """Where on codes, or on integers."""
    attrs = node.attrs
    fields = {key: int(attrs[key]) for key in ("a_zp", "b_zp", "a_m", "b_m", "n", "y_zp", "lo", "hi") if key in attrs}
    _joint(emitter, node, "where", "cab", **fields)


def emit_compare(emitter: Emitter, node: Node) -> None:
    """Compare."""
    fields = {key: int(node.attrs[key]) for key in ("a_zp", "b_zp", "a_m", "b_m")}
    _joint(emitter, node, "compare", "ab", kind=int(Comparison[str(node.attrs["kind"]).upper()]), **fields)


def emit_logic(emitter: Emitter, node: Node) -> None:
    """Not, And, Or and Xor."""
    operands = [node.inputs[0], node.inputs[0]] if node.op == "Not" else list(node.inputs)
    _joint_of(
        emitter, node, [emitter.view(tensor) for tensor in operands], "logic", "ab", kind=int(Logic[node.op.upper()])
    )


def _joint(emitter: Emitter, node: Node, opcode: str, names: str, **fields: Any) -> None:
    _joint_of(emitter, node, [emitter.view(tensor) for tensor in node.inputs], opcode, names, **fields)


def _joint_of(emitter: Emitter, node: Node, operands: Sequence[View], opcode: str, names: str, **fields: Any) -> None:
    """An instruction on broadcast operands; the result lies like its largest operand."""
    shape = emitter.shape(node.outputs[0])
    dense = [view if view.offset == 0 else emitter.in_order(view, None, node.name) for view in operands]
    fitting = [emitter.broadcast(view, shape, node.name) for view in dense]
    y = emitter.new(node.outputs[0], _common_order(fitting))
    dims, walks = emitter.walk(fitting, y, node.name)
    strides = {f"{name}_strides": walk for name, walk in zip(names, walks, strict=True)}
    handles = {name: view.handle for name, view in zip(names, fitting, strict=True)}
    emitter.program.emit(opcode, node=node.name, y=y.handle, dims=dims, **handles, **strides, **fields)


def _common_order(views: Sequence[View]) -> Order | None:
    return next((view.order for view in views if view.order is not None), None)
