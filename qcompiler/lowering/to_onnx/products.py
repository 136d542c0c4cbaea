"""Writes an integer graph as integer arithmetic in standard ONNX operators: the oracle of the machine, bit for bit.

Products are exact on every CPU: onnxruntime's uint8 x int8 kernels saturate without VNNI, its uint8 x uint8 ones do
not, so weights are stored as uint8 with zero point 128, and an int16 operand is split into two bytes: ``x - zero =
256*(hi - zero_hi) + (lo - zero_lo)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qcompiler.errors import UnsupportedError
from qcompiler.graph.ir import Graph, Node, Tensor, Variable
from qcompiler.lowering.to_onnx.writer import OnnxWriter

Write = Callable[[OnnxWriter, Node], None]
Part = tuple[Tensor, int, int]
"""(uint8 tensor, its zero point, the factor of its products)."""


def write_integer_onnx(graph: Graph, rules: dict[str, Write]) -> Graph:
    """A graph of standard operators with the inputs and outputs of ``graph``.

    Raises:
        UnsupportedError: names the node that standard integer operators cannot express.
    """
    writer = OnnxWriter(graph)
    for tensor in graph.inputs:
        copy = Variable(tensor.name, dtype=tensor.dtype, shape=tensor.shape)
        writer.graph.inputs.append(copy)
        writer.bind(tensor, copy)
    for node in graph.nodes:
        rule = rules.get(node.op) or (_write_integer if node.op.startswith("Integer") else None)
        if rule is None:
            raise UnsupportedError(
                f"node '{node.name}' ({node.op}): standard integer operators cannot express it; use the .qprog output"
            )
        rule(writer, node)
    writer.graph.outputs = [writer.tensor(tensor) for tensor in graph.outputs]
    for tensor, source in zip(writer.graph.outputs, graph.outputs, strict=True):
        tensor.dtype, tensor.shape = source.dtype, source.shape
    return writer.graph.cleanup(remove_unused_graph_inputs=False).toposort()


def finish_codes(writer: OnnxWriter, node: Node, value: Tensor) -> None:
    """``out(value)`` of docs/integer-operators.md."""
    attrs = node.attrs
    code = writer.clip(writer.add(value, int(attrs["y_zp"])), int(attrs["lo"]), int(attrs["hi"]))
    writer.finish(node.outputs[0], writer.cast(code, attrs["dtype"]))


def split_bytes(writer: OnnxWriter, x: Tensor, zero: int) -> list[Part]:
    """``x - zero`` as a sum of products of bytes."""
    if np.dtype(x.dtype) == np.dtype(np.uint8):
        return [(x, zero, 1)]
    wide = writer.wide(x)
    low = writer.emit("Mod", [wide, 256])
    high = writer.emit("Div", [writer.sub(wide, low), 256])
    return [
        (writer.cast(low, np.uint8), zero % 256, 1),
        (writer.cast(writer.add(high, 128), np.uint8), zero // 256 + 128, 256),
    ]


def sum_of_products(
    writer: OnnxWriter, op: str, a: list[Part], b: list[Part], **attrs: Any
) -> Tensor:
    """The int64 sum over all pairs of bytes of ``op`` (ConvInteger or MatMulInteger)."""
    total: Tensor | None = None
    for left, left_zero, left_factor in a:
        for right, right_zero, right_factor in b:
            zeros = [np.uint8(left_zero).reshape(()), np.uint8(right_zero).reshape(())]
            piece = writer.emit(op, [left, right, *zeros], np.int32, **attrs)
            term = writer.mul(writer.cast(piece, np.int64), left_factor * right_factor)
            total = term if total is None else writer.add(total, term)
    if total is None:
        raise UnsupportedError("a product of nothing")
    return total


def weight_part(writer: OnnxWriter, weight: Any) -> list[Part]:
    """int8 weights as uint8 with zero point 128."""
    return [(writer.constant((np.asarray(weight).astype(np.int16) + 128).astype(np.uint8)), 128, 1)]


def requant_channels(writer: OnnxWriter, node: Node, total: Tensor, shape: tuple[int, ...]) -> None:
    """Add the bias, requantize with one factor per channel: ``shape`` lays channels along their axis."""
    bias, m, n = (np.asarray(tensor.values).astype(np.int64) for tensor in node.inputs[2:5])
    powers = np.left_shift(np.int64(1), n)
    scaled = writer.mul(writer.add(total, bias.reshape(shape)), m.reshape(shape))
    finish_codes(writer, node, writer.round_shift_by(scaled, powers.reshape(shape)))


def write_conv(writer: OnnxWriter, node: Node) -> None:
    """Conv."""
    x, weight = writer.tensor(node.inputs[0]), np.asarray(node.inputs[1].values)
    attrs = {key: node.attrs[key] for key in ("strides", "pads", "dilations", "group", "kernel_shape")}
    parts = split_bytes(writer, x, int(node.attrs["x_zp"]))
    total = sum_of_products(writer, "ConvInteger", parts, weight_part(writer, weight), **attrs)
    requant_channels(writer, node, total, (-1, *([1] * (weight.ndim - 2))))


def write_conv_transpose(writer: OnnxWriter, node: Node) -> None:
    """ConvTranspose: zeros between the positions, padding, and a convolution with the flipped kernel."""
    weight, zero, attrs = np.asarray(node.inputs[1].values), int(node.attrs["x_zp"]), node.attrs
    spatial, groups = weight.ndim - 2, int(attrs["group"])
    inputs, part = weight.shape[:2]
    flipped = np.flip(weight, tuple(range(2, 2 + spatial))).reshape(groups, inputs // groups, part, *weight.shape[2:])
    kernel = flipped.swapaxes(1, 2).reshape(groups * part, inputs // groups, *weight.shape[2:])
    parts = []
    for piece, piece_zero, factor in split_bytes(writer, writer.tensor(node.inputs[0]), zero):
        parts.append((_spread(writer, node, piece, piece_zero, weight.shape[2:]), piece_zero, factor))
    total = sum_of_products(
        writer,
        "ConvInteger",
        parts,
        weight_part(writer, np.ascontiguousarray(kernel)),
        group=groups,
        dilations=attrs["dilations"],
        kernel_shape=list(weight.shape[2:]),
    )
    requant_channels(writer, node, total, (-1, *([1] * spatial)))


def _spread(writer: OnnxWriter, node: Node, x: Tensor, zero: int, kernel: tuple[int, ...]) -> Tensor:
    """``x`` with stride-1 zero points between its positions, padded (or cut) as the flipped convolution needs it."""
    attrs, spatial = node.attrs, len(kernel)
    fill = writer.constant(np.asarray(zero, np.int32))
    wide = writer.cast(x, np.int32)
    for axis, stride in enumerate(attrs["strides"]):
        if stride > 1:
            wide = _insert(writer, wide, axis + 2, stride, fill)
    reach = [int(d) * (k - 1) for d, k in zip(attrs["dilations"], kernel, strict=True)]
    before = [r - int(p) for r, p in zip(reach, attrs["pads"][:spatial], strict=True)]
    after = [
        r - int(p) + int(extra) - (int(stride) - 1)
        for r, p, extra, stride in zip(
            reach, attrs["pads"][spatial:], attrs["output_padding"], attrs["strides"], strict=True
        )
    ]
    pads = np.array([0, 0, *before, 0, 0, *after], np.int64)
    return writer.cast(writer.emit("Pad", [wide, pads, fill], np.int32), np.uint8)


def _insert(writer: OnnxWriter, x: Tensor, axis: int, stride: int, fill: Tensor) -> Tensor:
    """``stride - 1`` fill values behind every element along ``axis``."""
    apart = writer.emit("Unsqueeze", [x, np.array([axis + 1], np.int64)], np.int32)
    padded = writer.emit(
        "Pad", [apart, np.array([0, stride - 1], np.int64), fill, np.array([axis + 1], np.int64)], np.int32
    )
    shape = writer.emit("Shape", [x])
    factor = np.ones(1, np.int64) * stride
    sizes = [writer.emit("Slice", [shape, np.array([i]), np.array([i + 1])]) for i in range(axis)]
    sizes.append(writer.mul(writer.emit("Slice", [shape, np.array([axis]), np.array([axis + 1])]), factor))
    sizes.append(writer.emit("Slice", [shape, np.array([axis + 1]), np.array([1 << 31])]))
    return writer.emit("Reshape", [padded, writer.emit("Concat", sizes, axis=0)], np.int32)


def write_gemm(writer: OnnxWriter, node: Node) -> None:
    """Gemm."""
    parts = split_bytes(writer, writer.tensor(node.inputs[0]), int(node.attrs["x_zp"]))
    total = sum_of_products(writer, "MatMulInteger", parts, weight_part(writer, node.inputs[1].values))
    requant_channels(writer, node, total, (-1,))


def write_matmul(writer: OnnxWriter, node: Node) -> None:
    """MatMul of codes."""
    a, b = (
        split_bytes(writer, writer.tensor(tensor), int(node.attrs[key]))
        for tensor, key in zip(node.inputs, ("a_zp", "b_zp"), strict=True)
    )
    total = sum_of_products(writer, "MatMulInteger", a, b)
    finish_codes(writer, node, writer.requant(total, int(node.attrs["m"]), int(node.attrs["n"])))


def _write_integer(writer: OnnxWriter, node: Node) -> None:
    """Arithmetic of integers is standard already."""
    inputs = [writer.tensor(tensor) for tensor in node.inputs]
    result = writer.emit(node.op.removeprefix("Integer"), inputs, node.outputs[0].dtype, **node.attrs)
    writer.finish(node.outputs[0], result)
