"""Conv, ConvTranspose, Gemm, MatMul and BatchNormalization: multiply, accumulate, requantize.

A bias that a following Add brings is part of the layer. Real factor of output channel o: ``s_x * s_w[o] / s_y``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.errors import UnsupportedError
from qcompiler.ir import Node, Tensor, producer
from qcompiler.lowering.constants import Weight, read_weight
from qcompiler.lowering.core import Bounds, Lowering
from qcompiler.lowering.factors import ACCUMULATOR_LIMIT, DYNAMIC_LIMIT, fixed_point, fixed_points, prove_accumulator, wide_fixed_point
from qcompiler.lowering.grid import Coded, Target
from qcompiler.lowering.shapes import rank_of, size_along, static_shape

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization")
_BIAS_LIMIT = 2**30


@dataclass(frozen=True)
class Layer:
    """A linear layer as mathematics: ``y[o] = gain * sum(w[o] * x) + bias[o]``.

    Attributes:
        kind: Conv, ConvTranspose or Gemm.
        name: of the float node.
        attrs: of the float node.
        x: its input.
        weight: codes in ONNX's order (Gemm: [K, N]), ``scale`` expanded to one entry per output channel.
        rows: codes as [outputs, products per output].
        bias: float64 per output channel.
        gain: Gemm's alpha.
        across: x is transposed first (Gemm's transA).
    """

    kind: str
    name: str
    attrs: Mapping[str, Any]
    x: Tensor
    weight: Weight
    rows: NDArray[np.int8]
    bias: NDArray[np.float64]
    gain: float = 1.0
    across: bool = False

    @property
    def outputs(self) -> int:
        """Number of output channels."""
        return int(self.rows.shape[0])


def read_layer(lw: Lowering, node: Node) -> Layer | None:
    """The layer a node computes; None when its weight is not constant or has a batch dimension.

    Raises:
        UnsupportedError: the weight has no int8 form per output channel.
    """
    readers = {"Conv": _read_conv, "ConvTranspose": _read_conv_transpose, "Gemm": _read_gemm, "MatMul": _read_matmul}
    if node.op == "BatchNormalization":
        return _read_batchnorm(lw, node)
    reader = readers.get(node.op)
    return reader(lw, node) if reader is not None else None


def _per_output(weight: Weight, axis: int, outputs: int, groups: int = 1) -> Weight:
    """The weight with one scale per output channel, which lie along ``axis`` (in ``groups`` blocks)."""
    if weight.axis is None:
        return replace(weight, scale=np.full(outputs, weight.scale[0]), axis=axis)
    if weight.axis != axis:
        raise UnsupportedError(f"its weight has scales along axis {weight.axis}; integer layers need them along axis {axis}, the output channels")
    return replace(weight, scale=np.tile(weight.scale, groups), axis=axis)


def _bias(lw: Lowering, node: Node, index: int, outputs: int) -> NDArray[np.float64]:
    if len(node.inputs) <= index or not node.inputs[index].name:
        return np.zeros(outputs)
    value = lw.constants.value(node.inputs[index])
    if value is None:
        raise UnsupportedError(f"its bias '{node.inputs[index].name}' is not constant")
    if value.size not in (1, outputs) or (value.size == outputs and outputs > 1 and value.shape[-1] != outputs):
        raise UnsupportedError(f"its bias has shape {list(value.shape)}; one value per output channel is needed")
    return np.broadcast_to(value.reshape(-1).astype(np.float64), (outputs,)).copy()


def _read_conv(lw: Lowering, node: Node) -> Layer | None:
    weight = read_weight(lw.constants, node.inputs[1], 0)
    if weight is None:
        raise UnsupportedError(f"its weight '{node.inputs[1].name}' is not constant")
    outputs = weight.codes.shape[0]
    rows = weight.codes.reshape(outputs, -1)
    return Layer("Conv", node.name, node.attrs, node.inputs[0], _per_output(weight, 0, outputs), rows, _bias(lw, node, 2, outputs))


def _read_conv_transpose(lw: Lowering, node: Node) -> Layer | None:
    weight = read_weight(lw.constants, node.inputs[1], 1)
    if weight is None:
        raise UnsupportedError(f"its weight '{node.inputs[1].name}' is not constant")
    groups, (inputs, part) = int(node.attrs.get("group", 1)), weight.codes.shape[:2]
    outputs = part * groups
    rows = weight.codes.reshape(groups, inputs // groups, part, -1).transpose(0, 2, 1, 3).reshape(outputs, -1)
    scaled = _per_output(weight, 1, outputs, groups)
    return Layer("ConvTranspose", node.name, node.attrs, node.inputs[0], scaled, rows, _bias(lw, node, 2, outputs))


def _read_gemm(lw: Lowering, node: Node) -> Layer | None:
    across = int(node.attrs.get("transB", 0))
    weight = read_weight(lw.constants, node.inputs[1], 0 if across else 1)
    if weight is None:
        return None
    weight = weight.transposed([1, 0]) if across else weight
    outputs = weight.codes.shape[1]
    bias = _bias(lw, node, 2, outputs) * float(node.attrs.get("beta", 1.0))
    gain, turned = float(node.attrs.get("alpha", 1.0)), bool(node.attrs.get("transA", 0))
    return Layer("Gemm", node.name, node.attrs, node.inputs[0], _per_output(weight, 1, outputs), weight.codes.T, bias, gain, turned)


def _read_matmul(lw: Lowering, node: Node) -> Layer | None:
    value = lw.constants.value(node.inputs[1])
    if value is None or value.ndim != 2 or lw.constants.value(node.inputs[0]) is not None:
        return None
    weight = read_weight(lw.constants, node.inputs[1], 1)
    if weight is None or weight.axis == 0:
        return None
    outputs = weight.codes.shape[1]
    return Layer("Gemm", node.name, node.attrs, node.inputs[0], _per_output(weight, 1, outputs), weight.codes.T, np.zeros(outputs))


def _read_batchnorm(lw: Lowering, node: Node) -> Layer:
    """BatchNormalization as a depthwise 1x1 convolution whose weights are +-1 with scale ``|gamma| / sqrt(var + eps)``: nothing is lost."""
    gamma, beta, mean, variance = (_parameter(lw, tensor) for tensor in node.inputs[1:5])
    spatial = rank_of(node.inputs[0]) - 2
    if spatial not in (1, 2):
        raise UnsupportedError("it normalizes a tensor of rank 2; fold it into the layer before it (pass 'normalize')")
    slope = gamma / np.sqrt(variance + float(node.attrs.get("epsilon", 1e-5)))
    codes = np.where(slope < 0, -1, np.where(slope > 0, 1, 0)).astype(np.int8)
    weight = Weight(codes.reshape(-1, 1, *([1] * spatial)), np.where(slope == 0, 1.0, np.abs(slope)), 0)
    return Layer("Conv", node.name, {"group": len(slope)}, node.inputs[0], weight, codes.reshape(-1, 1), beta - mean * slope)


def _parameter(lw: Lowering, tensor: Tensor) -> NDArray[np.float64]:
    value = lw.constants.value(tensor)
    if value is None:
        raise UnsupportedError(f"its parameter '{tensor.name}' is not constant")
    return value.reshape(-1).astype(np.float64)


def with_bias(lw: Lowering, node: Node) -> Layer | None:
    """The layer of ``Add(layer, constant)`` with one constant per output channel; None when ``node`` is something else."""
    for index in (0, 1):
        constant, inner = lw.constants.value(node.inputs[1 - index]), producer(node.inputs[index])
        if constant is None or inner is None or inner.op not in LAYERS or lw.constants.value(node.inputs[index]) is not None:
            continue
        layer = read_layer(lw, inner)
        if layer is not None and _along_channels(layer, constant.shape):
            added = np.broadcast_to(constant.reshape(-1).astype(np.float64), (layer.outputs,))
            return replace(layer, bias=layer.bias + added)
    return None


def _along_channels(layer: Layer, shape: tuple[int, ...]) -> bool:
    channel = -1 if layer.kind == "Gemm" else 1 - rank_of(layer.x)
    sizes = [1] * max(len(shape), -channel)
    sizes[len(sizes) - len(shape):] = shape
    others = [size for i, size in enumerate(sizes) if i != len(sizes) + channel]
    return len(sizes) <= rank_of(layer.x) and all(size == 1 for size in others) and sizes[channel] in (1, layer.outputs)


def lower_layer_node(lw: Lowering, node: Node, _index: int, target: Target) -> Coded:
    """Rule of the layer operators."""
    layer = read_layer(lw, node)
    if layer is not None:
        return emit_layer(lw, layer, node.outputs[0], target)
    return _lower_product(lw, node, target)


def emit_layer(lw: Lowering, layer: Layer, output: Tensor, target: Target) -> Coded:
    """Conv, ConvTranspose or Gemm of the integer graph."""
    x = lw.natural(layer.x)
    if layer.across:
        turned = lw.out.op("Transpose", f"{target.name}_x", [x.tensor], {"perm": [1, 0]}, x.grid.dtype, layer.x.shape[::-1])
        x = replace(x, tensor=turned)
    layer, bias = _integer_bias(layer, x)
    prove_accumulator(layer.rows, bias, x)
    m, n = fixed_points(x.grid.scale * layer.gain * layer.weight.scale / target.grid.scale)
    name = layer.name or target.name
    operands = [
        x.tensor, lw.out.constant(f"{name}_weight", layer.weight.codes), lw.out.constant(f"{name}_bias", bias.astype(np.int32)),
        lw.out.int64(f"{name}_m", m), lw.out.int64(f"{name}_n", n),
    ]
    attrs: dict[str, object] = {"x_zp": x.grid.zero_point}
    if layer.kind != "Gemm":
        attrs |= _geometry(layer)
    return lw.emit(layer.kind, operands, attrs, target, output.shape)


def _integer_bias(layer: Layer, x: Coded) -> tuple[Layer, NDArray[np.int64]]:
    """The bias in units of ``s_x * s_w``. A channel whose bias exceeds 2^30 gets coarser weights: its products do not count beside it."""
    real = layer.bias / (x.grid.scale * layer.gain * layer.weight.scale)
    ratio = np.maximum(1.0, np.abs(real) / _BIAS_LIMIT)
    if np.any(ratio > 1.0):
        rows = np.rint(layer.rows / ratio[:, None]).astype(np.int8)
        weight = replace(layer.weight, codes=_like(layer, rows), scale=layer.weight.scale * ratio)
        layer = replace(layer, weight=weight, rows=rows)
    return layer, np.rint(real / ratio).astype(np.int64)


def _like(layer: Layer, rows: NDArray[np.int8]) -> NDArray[np.int8]:
    """``rows`` back in the order of the ONNX weight."""
    shape = layer.weight.codes.shape
    if layer.kind == "Conv":
        return rows.reshape(shape)
    if layer.kind != "ConvTranspose":
        return np.ascontiguousarray(rows.T)
    groups = int(layer.attrs.get("group", 1))
    return rows.reshape(groups, shape[1], shape[0] // groups, -1).transpose(0, 2, 1, 3).reshape(shape)


def _geometry(layer: Layer) -> dict[str, object]:
    """Strides, padding, dilations and groups of a convolution, complete and explicit."""
    given, spatial = layer.attrs, layer.weight.codes.ndim - 2
    if spatial not in (1, 2):
        raise UnsupportedError(f"it convolves {spatial} spatial axes; 1 and 2 are supported")
    kernel = list(layer.weight.codes.shape[2:])
    strides, dilations = list(given.get("strides", [1] * spatial)), list(given.get("dilations", [1] * spatial))
    attrs: dict[str, object] = {"strides": strides, "dilations": dilations, "group": int(given.get("group", 1)), "kernel_shape": kernel}
    if layer.kind == "ConvTranspose":
        return attrs | _transpose_padding(layer, kernel, strides, dilations)
    return attrs | {"pads": padding(given, layer.x, kernel, strides, dilations)}


def padding(given: Mapping[str, Any], x: Tensor, kernel: list[int], strides: list[int], dilations: list[int]) -> list[int]:
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


def _transpose_padding(layer: Layer, kernel: list[int], strides: list[int], dilations: list[int]) -> dict[str, object]:
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
        raise UnsupportedError(f"its weight '{node.inputs[1].name}' is not constant; write it as Transpose, MatMul and Add")
    if min(rank_of(node.inputs[0]), rank_of(node.inputs[1])) < 2:
        raise UnsupportedError("it multiplies a vector; reshape the vector to a matrix")
    a, b = lw.natural(node.inputs[0]), lw.natural(node.inputs[1])
    depth = size_along(node.inputs[0], -1) or size_along(node.inputs[1], -2) or DYNAMIC_LIMIT
    largest, factor = depth * a.magnitude * b.magnitude, a.grid.scale * b.grid.scale / target.grid.scale
    wide = largest >= ACCUMULATOR_LIMIT
    m, n = wide_fixed_point(factor, largest) if wide else fixed_point(factor)
    attrs = {"a_zp": a.grid.zero_point, "b_zp": b.grid.zero_point, "m": m, "n": n, "acc_bits": 64 if wide else 32}
    return lw.emit("MatMul", [a.tensor, b.tensor], attrs, target, node.outputs[0].shape)


def layer_bounds(lw: Lowering, node: Node) -> Bounds:
    """Range of a layer's output, from its weights and the range of its input."""
    layer = read_layer(lw, node)
    return _product_bounds(lw, node) if layer is None else bounds_of(lw, layer)


def bounds_of(lw: Lowering, layer: Layer) -> Bounds:
    """Range of ``layer``'s output."""
    low, high = lw.bounds(layer.x)
    low, high = min(low, 0.0), max(high, 0.0)
    wide = layer.rows.astype(np.float64)
    positive, negative = np.maximum(wide, 0).sum(axis=1), np.minimum(wide, 0).sum(axis=1)
    step = layer.weight.scale * abs(layer.gain)
    if layer.gain < 0:
        positive, negative = -negative, -positive
    top = step * (positive * high + negative * low) + layer.bias
    bottom = step * (positive * low + negative * high) + layer.bias
    return float(bottom.min()), float(top.max())


def _product_bounds(lw: Lowering, node: Node) -> Bounds:
    depth = size_along(node.inputs[0], -1) or size_along(node.inputs[1], -2)
    if depth is None:
        raise UnsupportedError("the range of its result is unknown; put a QuantizeLinear/DequantizeLinear pair behind it")
    a, b = (max(abs(v) for v in lw.bounds(tensor)) for tensor in node.inputs[:2])
    return -depth * a * b, depth * a * b
