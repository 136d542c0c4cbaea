"""Conv, ConvTranspose, Gemm, MatMul and BatchNormalization: multiply, accumulate, requantize.

A bias that a following Add brings is part of the layer. Real factor of output channel o: ``s_x * s_w[o] / s_y``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.errors import UnsupportedError
from qcompiler.graph.ir import Node, Tensor
from qcompiler.lowering.code_grid import Coded, Target
from qcompiler.lowering.engine import Bounds, Lowering
from qcompiler.lowering.factors import (
    ACCUMULATOR_LIMIT,
    DYNAMIC_LIMIT,
    fixed_point,
    fixed_points,
    wide_fixed_point,
)
from qcompiler.lowering.overflow_proof import prove_accumulator, signed_sums
from qcompiler.lowering.ranks import rank_of, size_along, static_shape
from qcompiler.lowering.rules.linear import LinearLayer, read_layer
from qcompiler.lowering.rules.wide_weights import narrowed

_BIAS_LIMIT = 2**30


def lower_layer_node(lw: Lowering, node: Node, _index: int, target: Target) -> Coded:
    """Rule of the layer operators."""
    layer = read_layer(lw, node)
    if layer is not None:
        return emit_layer(lw, layer, node.outputs[0], target)
    return _lower_product(lw, node, target)


def emit_layer(lw: Lowering, layer: LinearLayer, output: Tensor, target: Target) -> Coded:
    """Conv, ConvTranspose or Gemm of the integer graph."""
    x = lw.natural(layer.x)
    if layer.across:
        turned = lw.out.op(
            "Transpose", f"{target.name}_x", [x.tensor], {"perm": [1, 0]}, x.grid.dtype, layer.x.shape[::-1]
        )
        x = replace(x, tensor=turned)
    layer, x = narrowed(lw, layer, x)
    layer, bias = _integer_bias(layer, x)
    prove_accumulator(layer.rows, bias, x)
    m, n = fixed_points(x.grid.scale * layer.gain * layer.weight.scale / target.grid.scale)
    name = layer.name or target.name
    operands = [
        x.tensor,
        lw.out.constant(f"{name}_weight", layer.weight.codes),
        lw.out.constant(f"{name}_bias", bias.astype(np.int32)),
        lw.out.int64(f"{name}_m", m),
        lw.out.int64(f"{name}_n", n),
    ]
    attrs: dict[str, object] = {"x_zp": x.grid.zero_point}
    if layer.kind != "Gemm":
        attrs |= _geometry(layer)
    return lw.emit(layer.kind, operands, attrs, target, output.shape)


def _integer_bias(layer: LinearLayer, x: Coded) -> tuple[LinearLayer, NDArray[np.int64]]:
    """The bias in units of ``s_x * s_w``; for one beyond 2^30 the channel's weights get coarser, hardly visibly."""
    real = layer.bias / (x.grid.scale * layer.gain * layer.weight.scale)
    ratio = np.maximum(1.0, np.abs(real) / _BIAS_LIMIT)
    if np.any(ratio > 1.0):
        rows = np.rint(layer.rows / ratio[:, None]).astype(np.int8)
        weight = replace(layer.weight, codes=layer.in_onnx_order(rows), scale=layer.weight.scale * ratio)
        layer = replace(layer, weight=weight, rows=rows)
    return layer, np.rint(real / ratio).astype(np.int64)


def _geometry(layer: LinearLayer) -> dict[str, object]:
    """Strides, padding, dilations and groups of a convolution, complete and explicit."""
    given, spatial = layer.attrs, layer.weight.codes.ndim - 2
    if spatial not in (1, 2):
        raise UnsupportedError(f"it convolves {spatial} spatial axes; 1 and 2 are supported")
    kernel = list(layer.weight.codes.shape[2:])
    strides, dilations = list(given.get("strides", [1] * spatial)), list(given.get("dilations", [1] * spatial))
    attrs: dict[str, object] = {
        "strides": strides,
        "dilations": dilations,
        "group": int(given.get("group", 1)),
        "kernel_shape": kernel,
    }
    if layer.kind == "ConvTranspose":
        return attrs | _transpose_padding(layer, kernel, strides, dilations)
    return attrs | {"pads": padding(given, layer.x, kernel, strides, dilations)}


def padding(
    given: Mapping[str, Any], x: Tensor, kernel: list[int], strides: list[int], dilations: list[int]
) -> list[int]:
    """Explicit ``pads``; ``auto_pad`` is resolved from the static input size."""
    mode, spatial = given.get("auto_pad", "NOTSET"), len(kernel)
    if mode in ("NOTSET", ""):
        return list(given.get("pads", [0] * (2 * spatial)))
    if mode == "VALID":
        return [0] * (2 * spatial)
    sizes = static_shape(x, "auto_pad needs a static size")[2:]
    totals = [
        max((-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size, 0)
        for size, k, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True)
    ]
    before = [total // 2 if mode == "SAME_UPPER" else total - total // 2 for total in totals]
    return before + [total - first for total, first in zip(totals, before, strict=True)]


def _transpose_padding(
    layer: LinearLayer, kernel: list[int], strides: list[int], dilations: list[int]
) -> dict[str, object]:
    given, spatial = layer.attrs, len(kernel)
    extra = list(given.get("output_padding", [0] * spatial))
    mode, wanted = given.get("auto_pad", "NOTSET"), given.get("output_shape")
    if mode == "NOTSET" and not wanted:
        return {"pads": list(given.get("pads", [0] * (2 * spatial))), "output_padding": extra}
    if mode == "VALID" and not wanted:
        return {"pads": [0] * (2 * spatial), "output_padding": extra}
    sizes = static_shape(layer.x, "auto_pad and output_shape need a static size")[2:]
    goal = list(wanted)[-spatial:] if wanted else [size * stride for size, stride in zip(sizes, strides, strict=True)]
    totals = [
        stride * (size - 1) + more + (k - 1) * dilation + 1 - out
        for size, stride, more, k, dilation, out in zip(sizes, strides, extra, kernel, dilations, goal, strict=True)
    ]
    extra = [more + max(-total, 0) for more, total in zip(extra, totals, strict=True)]
    totals = [max(total, 0) for total in totals]
    before = [total // 2 if mode == "SAME_UPPER" else total - total // 2 for total in totals]
    return {"pads": before + [t - b for t, b in zip(totals, before, strict=True)], "output_padding": extra}


def _lower_product(lw: Lowering, node: Node, target: Target) -> Coded:
    """MatMul of two code tensors, or of a batched constant."""
    if node.op != "MatMul":
        raise UnsupportedError(
            f"its weight '{node.inputs[1].name}' is not constant; write it as Transpose, MatMul and Add"
        )
    a, b = (_as_matrix(lw, tensor, axis) for tensor, axis in zip(node.inputs, (0, 1), strict=True))
    depth = size_along(node.inputs[0], -1) or _rows_of(node.inputs[1]) or DYNAMIC_LIMIT
    largest, factor = a.row_magnitude(depth) * b.magnitude, a.grid.scale * b.grid.scale / target.grid.scale
    wide = largest >= ACCUMULATOR_LIMIT
    m, n = wide_fixed_point(factor, largest) if wide else fixed_point(factor)
    attrs = {"a_zp": a.grid.zero_point, "b_zp": b.grid.zero_point, "m": m, "n": n, "acc_bits": 64 if wide else 32}
    dropped = [axis for axis, tensor in zip((-2, -1), node.inputs, strict=True) if rank_of(tensor) == 1]
    shape = node.outputs[0].shape
    if not dropped:
        return lw.emit("MatMul", [a.tensor, b.tensor], attrs, target, shape)
    rank = len(shape) + len(dropped)
    product = lw.emit("MatMul", [a.tensor, b.tensor], attrs, replace(target, name=f"{target.name}_matrix"), None)
    axes = lw.out.int64("axes", sorted(axis + rank for axis in dropped))
    return replace(
        product, tensor=lw.out.op("Squeeze", target.name, [product.tensor, axes], {}, target.grid.dtype, shape)
    )


def _as_matrix(lw: Lowering, tensor: Tensor, axis: int) -> Coded:
    """Codes of an operand of MatMul; a vector becomes a matrix of one row (axis 0) or one column (axis 1)."""
    codes = lw.natural(tensor)
    if rank_of(tensor) > 1:
        return codes
    shape, axes = [*tensor.shape[:axis], 1, *tensor.shape[axis:]], lw.out.int64("axes", [axis])
    return replace(
        codes, tensor=lw.out.op("Unsqueeze", f"{tensor.name}_matrix", [codes.tensor, axes], {}, codes.grid.dtype, shape)
    )


def layer_bounds(lw: Lowering, node: Node) -> Bounds:
    """Range of a layer's output, from its weights and the range of its input."""
    layer = read_layer(lw, node)
    return _product_bounds(lw, node) if layer is None else bounds_of(lw, layer)


def bounds_of(lw: Lowering, layer: LinearLayer) -> Bounds:
    """Range of ``layer``'s output."""
    low, high = lw.bounds(layer.x)
    low, high = min(low, 0.0), max(high, 0.0)
    positive, negative = (sums.astype(np.float64) for sums in signed_sums(layer.rows))
    step = layer.weight.scale * abs(layer.gain)
    if layer.gain < 0:
        positive, negative = -negative, -positive
    top = step * (positive * high + negative * low) + layer.bias
    bottom = step * (positive * low + negative * high) + layer.bias
    return float(bottom.min()), float(top.max())


def _product_bounds(lw: Lowering, node: Node) -> Bounds:
    depth = size_along(node.inputs[0], -1) or _rows_of(node.inputs[1])
    if depth is None:
        raise UnsupportedError(
            "the range of its result is unknown; put a QuantizeLinear/DequantizeLinear pair behind it"
        )
    a, b = (max(abs(v) for v in lw.bounds(tensor)) for tensor in node.inputs[:2])
    return -depth * a * b, depth * a * b


def _rows_of(tensor: Tensor) -> int | None:
    """The size over which MatMul sums in its second operand; None when it is symbolic."""
    return size_along(tensor, -2 if rank_of(tensor) > 1 else 0)
