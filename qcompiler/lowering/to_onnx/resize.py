"""Resizing as standard integer ONNX."""

from __future__ import annotations

import numpy as np

from qcompiler.graph.ir import Node, Tensor
from qcompiler.lowering.to_onnx.products import finish_codes
from qcompiler.lowering.to_onnx.writer import OnnxWriter


def write_repeat(writer: OnnxWriter, node: Node) -> None:
    """Every element several times along an axis: Unsqueeze, Expand, Reshape."""
    x, repeats = writer.tensor(node.inputs[0]), np.asarray(node.inputs[1].values)
    dtype, rank = np.dtype(x.dtype), len(repeats)
    axes = [int(axis) for axis in np.flatnonzero(repeats != 1)]
    apart = writer.emit(
        "Unsqueeze", [writer.cast(x, np.int32), np.array([axis + 1 + i for i, axis in enumerate(axes)])], np.int32
    )
    spread = np.ones(rank + len(axes), np.int64)
    for i, axis in enumerate(axes):
        spread[axis + 1 + i] = repeats[axis]
    wide = writer.emit("Expand", [apart, spread], np.int32)
    shape = writer.mul(writer.emit("Shape", [x]), repeats.astype(np.int64))
    writer.finish(node.outputs[0], writer.cast(writer.emit("Reshape", [wide, shape], np.int32), dtype))


def write_resize_linear(writer: OnnxWriter, node: Node) -> None:
    """ResizeLinear: columns, then rows, blended in Q15 each; one rounding at the end."""
    value = writer.centred(writer.tensor(node.inputs[0]), int(node.attrs["x_zp"]))
    tables = [writer.wide(writer.tensor(tensor)) for tensor in node.inputs[1:]]
    one = 1 << 15
    for axis, (low, high, weight) in ((3, tables[3:]), (2, tables[:3])):
        shape = [-1] + [1] * (3 - axis)
        value = writer.add(
            _weighted(writer, value, low, writer.sub(one, weight), axis, shape),
            _weighted(writer, value, high, weight, axis, shape),
        )
    finish_codes(writer, node, writer.requant(value, int(node.attrs["m"]), int(node.attrs["n"])))


def _weighted(
    writer: OnnxWriter, x: Tensor, index: Tensor, weight: Tensor, axis: int, shape: list[int]
) -> Tensor:
    along = writer.emit("Reshape", [weight, np.array(shape)])
    return writer.mul(writer.emit("Gather", [x, index], axis=axis), along)
