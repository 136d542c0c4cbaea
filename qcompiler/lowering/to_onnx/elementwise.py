"""Elementwise operators, borders and movers as standard integer ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import helper

from qcompiler.graph.ir import Node, Tensor
from qcompiler.lowering.to_onnx.products import finish_codes
from qcompiler.lowering.to_onnx.writer import OnnxWriter

_COMPARE = {
    "less": "Less",
    "less_equal": "LessOrEqual",
    "greater": "Greater",
    "greater_equal": "GreaterOrEqual",
    "equal": "Equal",
}
_WIDENED = ("Pad", "Expand", "Tile")
"""Movers that onnxruntime does not have for int16."""


def write_quantize(writer: OnnxWriter, node: Node) -> None:
    """QuantizeLinear at the border; for per-column grids the zero point is added behind it in 64 bits."""
    dtype = np.dtype(str(node.attrs["dtype"]))
    given = writer.tensor(node.inputs[0])
    source = given if given.dtype == np.float32 else writer.cast(given, np.float32)
    if "axis" not in node.attrs:
        zero = np.asarray(int(node.attrs["zp"]), dtype)
        inputs = [source, np.float32(node.attrs["scale"]).reshape(()), zero]
        writer.finish(node.outputs[0], writer.emit("QuantizeLinear", inputs, dtype))
        return
    steps = writer.emit(
        "Round", [writer.emit("Div", [source, _columns(node, "scale", np.float32)], np.float32)], np.float32
    )
    moved = writer.emit("Add", [steps, _columns(node, "zp", np.float32)], np.float32)
    limits = np.iinfo(dtype)
    inside = writer.emit("Clip", [moved, np.float32(limits.min), np.float32(limits.max)], np.float32)
    writer.finish(node.outputs[0], writer.emit("Cast", [inside], dtype, to=int(helper.np_dtype_to_tensor_dtype(dtype))))


def write_dequantize(writer: OnnxWriter, node: Node) -> None:
    """The border: DequantizeLinear."""
    codes = writer.tensor(node.inputs[0])
    if "axis" in node.attrs:
        scale, zero = np.asarray(node.attrs["scale"], np.float32), np.asarray(node.attrs["zp"], codes.dtype)
        writer.finish(
            node.outputs[0],
            writer.emit("DequantizeLinear", [codes, scale, zero], np.float32, axis=int(node.attrs["axis"])),
        )
        return
    inputs = [codes, np.float32(node.attrs["scale"]).reshape(()), np.asarray(int(node.attrs["zp"]), codes.dtype)]
    real, dtype = writer.emit("DequantizeLinear", inputs, np.float32), node.outputs[0].dtype
    info = np.iinfo(codes.dtype)
    for end, fill in zip((info.min, info.max), node.attrs.get("fills", ()), strict=False):
        if fill is not None:
            there = writer.emit("Equal", [codes, np.asarray(end, codes.dtype)], np.bool_)
            real = writer.emit("Where", [there, np.asarray(fill, np.float32), real], np.float32)
    writer.finish(node.outputs[0], real if dtype == np.float32 else writer.cast(real, dtype))


def _columns(node: Node, name: str, dtype: Any) -> Any:
    """One number per column, of a shape that fits the tensor's."""
    behind = len(node.inputs[0].shape) - 1 - int(node.attrs["axis"])
    return np.asarray(node.attrs[name], dtype).reshape(-1, *[1] * behind)


def write_quantize_integer(writer: OnnxWriter, node: Node) -> None:
    """QuantizeInteger."""
    x = writer.clip(writer.wide(writer.tensor(node.inputs[0])), -(1 << 31), (1 << 31) - 1)
    finish_codes(writer, node, writer.requant(x, int(node.attrs["m"]), int(node.attrs["n"])))


def write_requantize(writer: OnnxWriter, node: Node) -> None:
    """Requantize."""
    x = writer.centred(writer.tensor(node.inputs[0]), int(node.attrs["x_zp"]))
    finish_codes(writer, node, writer.requant(x, int(node.attrs["m"]), int(node.attrs["n"])))


def write_table(writer: OnnxWriter, node: Node) -> None:
    """Table."""
    x = writer.tensor(node.inputs[0])
    index = writer.centred(x, int(np.iinfo(x.dtype).min))
    table = writer.constant(np.asarray(node.inputs[1].values))
    writer.finish(node.outputs[0], writer.emit("Gather", [table, index], table.dtype, axis=0))


def write_piecewise(writer: OnnxWriter, node: Node) -> None:
    """PiecewiseLinear."""
    attrs = {name: int(node.attrs[name]) for name in ("first", "width_bits", "fraction", "lo", "hi")}
    lines = [np.asarray(tensor.values).astype(np.int64) for tensor in node.inputs[1:]]
    first, width = attrs["first"], 1 << attrs["width_bits"]
    inside = writer.clip(writer.wide(writer.tensor(node.inputs[0])), first, first + len(lines[0]) * width - 1)
    place = writer.sub(inside, first)
    segment = writer.floor_div(place, width)
    step = writer.sub(place, writer.mul(segment, width))
    base, slope = (writer.emit("Gather", [writer.constant(line), segment], np.int64, axis=0) for line in lines)
    value = writer.add(writer.mul(base, width), writer.mul(slope, step))
    shift = attrs["width_bits"] + attrs["fraction"]
    value = writer.floor_div(writer.add(value, (1 << shift) >> 1), 1 << shift)
    code = writer.clip(value, attrs["lo"], attrs["hi"])
    writer.finish(node.outputs[0], writer.cast(code, node.attrs["dtype"]))


def _terms(writer: OnnxWriter, node: Node, tensors: list[Tensor]) -> list[Tensor]:
    """Both operands without their zero points, times their factors."""
    attrs = node.attrs
    return [
        writer.mul(writer.centred(writer.tensor(tensor), int(attrs[f"{name}_zp"])), int(attrs[f"{name}_m"]))
        for name, tensor in zip("ab", tensors, strict=True)
    ]


def write_add(writer: OnnxWriter, node: Node) -> None:
    """Add, Min and Max."""
    a, b = _terms(writer, node, list(node.inputs))
    finish_codes(writer, node, writer.round_shift(writer.emit(node.op, [a, b]), int(node.attrs["n"])))


def write_where(writer: OnnxWriter, node: Node) -> None:
    """Where on codes."""
    a, b = _terms(writer, node, list(node.inputs[1:]))
    condition = writer.cast(writer.tensor(node.inputs[0]), bool)
    finish_codes(writer, node, writer.round_shift(writer.where(condition, a, b), int(node.attrs["n"])))


def write_mul(writer: OnnxWriter, node: Node) -> None:
    """Mul."""
    a, b = (
        writer.centred(writer.tensor(t), int(node.attrs[key]))
        for t, key in zip(node.inputs, ("a_zp", "b_zp"), strict=True)
    )
    finish_codes(writer, node, writer.requant(writer.mul(a, b), int(node.attrs["m"]), int(node.attrs["n"])))


def write_div(writer: OnnxWriter, node: Node) -> None:
    """Div: the quotient rounded half up; by zero it saturates."""
    attrs = node.attrs
    a, b = (
        writer.centred(writer.tensor(t), int(attrs[key])) for t, key in zip(node.inputs, ("a_zp", "b_zp"), strict=True)
    )
    numerator, denominator = writer.mul(a, int(attrs["m"])), writer.mul(b, 1 << int(attrs["n"]))
    sign = writer.where(writer.test("Less", denominator, 0), -1, 1)
    numerator, denominator = writer.mul(numerator, sign), writer.mul(denominator, sign)
    is_zero = writer.test("Equal", denominator, 0)
    divisor = writer.where(is_zero, 1, denominator)
    quotient = writer.floor_div(writer.add(writer.mul(numerator, 2), divisor), writer.mul(divisor, 2))
    extreme = writer.mul(writer.emit("Sign", [numerator]), 1 << 20)
    finish_codes(writer, node, writer.where(is_zero, extreme, quotient))


def write_compare(writer: OnnxWriter, node: Node) -> None:
    """Compare."""
    a, b = _terms(writer, node, list(node.inputs))
    writer.finish(node.outputs[0], writer.test(_COMPARE[str(node.attrs["kind"])], a, b))


def write_cast(writer: OnnxWriter, node: Node) -> None:
    """Cast between integer types."""
    source = writer.tensor(node.inputs[0])
    writer.finish(node.outputs[0], writer.emit("Cast", [source], node.outputs[0].dtype, to=int(node.attrs["to"])))


def write_same(writer: OnnxWriter, node: Node) -> None:
    """Operators that are standard as they stand: movers, logic, shapes."""
    result = node.outputs[0]
    inputs = [writer.tensor(tensor) for tensor in node.inputs]
    attrs: dict[str, Any] = dict(node.attrs)
    dtype = np.dtype(result.dtype)
    narrow = dtype == np.dtype(np.int16) and node.op in _WIDENED
    if narrow:
        inputs = [writer.cast(tensor, np.int32) if np.dtype(tensor.dtype) == dtype else tensor for tensor in inputs]
    moved: Tensor = writer.emit(node.op, inputs, np.int32 if narrow else dtype, **attrs)
    writer.finish(result, writer.cast(moved, dtype))


def write_depth_to_space(writer: OnnxWriter, node: Node) -> None:
    """DepthToSpace and SpaceToDepth, as Reshape, Transpose, Reshape: onnxruntime has them for floats alone."""
    x, block = writer.tensor(node.inputs[0]), int(node.attrs["blocksize"])
    shape = writer.emit("Shape", [x])
    n, c, h, w = (writer.emit("Slice", [shape, np.array([i]), np.array([i + 1])]) for i in range(4))
    side, square = np.array([block]), np.array([block * block])
    if node.op == "SpaceToDepth":
        rows, columns = writer.emit("Div", [h, side]), writer.emit("Div", [w, side])
        split, perm = [n, c, rows, side, columns, side], [0, 3, 5, 1, 2, 4]
        final = [n, writer.mul(c, square), rows, columns]
    else:
        depth = writer.emit("Div", [c, square])
        by_column = node.attrs["mode"] == "CRD"
        split = [n, depth, side, side, h, w] if by_column else [n, side, side, depth, h, w]
        perm = [0, 1, 4, 2, 5, 3] if by_column else [0, 3, 4, 1, 5, 2]
        final = [n, depth, writer.mul(h, side), writer.mul(w, side)]
    apart = writer.emit("Reshape", [x, writer.emit("Concat", split, axis=0)], x.dtype)
    turned = writer.emit("Transpose", [apart], x.dtype, perm=perm)
    writer.finish(node.outputs[0], writer.emit("Reshape", [turned, writer.emit("Concat", final, axis=0)], x.dtype))


def write_argmax(writer: OnnxWriter, node: Node) -> None:
    """ArgMax, which onnxruntime has for int32."""
    x = writer.cast(writer.tensor(node.inputs[0]), np.int32)
    writer.finish(node.outputs[0], writer.emit("ArgMax", [x], np.int64, **node.attrs))


def write_topk(writer: OnnxWriter, node: Node) -> None:
    """TopK, which onnxruntime has for int64."""
    x, count = writer.cast(writer.tensor(node.inputs[0]), np.int64), writer.tensor(node.inputs[1])
    name = node.outputs[0].name
    codes, places = (writer.variable(f"{name}_{part}", np.int64) for part in ("codes", "places"))
    writer.graph.nodes.append(Node("TopK", f"{name}_topk", dict(node.attrs), [x, count], [codes, places]))
    writer.finish(node.outputs[0], places)


def write_scatter(writer: OnnxWriter, node: Node) -> None:
    """ScatterElements of a vector."""
    inputs = [writer.tensor(tensor) for tensor in node.inputs]
    writer.finish(node.outputs[0], writer.emit("ScatterElements", inputs, node.outputs[0].dtype, axis=0))
