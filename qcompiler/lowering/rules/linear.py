"""Linear layers as mathematics, read from the float graph: weights as codes, scales per output channel, bias."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.errors import UnsupportedError
from qcompiler.graph.ir import Node, Tensor, producer
from qcompiler.graph.operators import lowered_by
from qcompiler.lowering.constants import Weight, read_weight
from qcompiler.lowering.engine import Lowering
from qcompiler.lowering.ranks import rank_of


@dataclass(frozen=True)
class LinearLayer:
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

    def in_onnx_order(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Codes given as ``rows``, back in the order of the ONNX weight."""
        shape = self.weight.codes.shape
        if self.kind == "Conv":
            return rows.reshape(shape)
        if self.kind != "ConvTranspose":
            return np.ascontiguousarray(rows.T)
        groups = int(self.attrs.get("group", 1))
        return rows.reshape(groups, shape[1], shape[0] // groups, -1).transpose(0, 2, 1, 3).reshape(shape)

    @property
    def outputs(self) -> int:
        """Number of output channels."""
        return int(self.rows.shape[0])


def read_layer(lw: Lowering, node: Node) -> LinearLayer | None:
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
        raise UnsupportedError(
            f"its weight has scales along axis {weight.axis}; integer layers need them along axis "
            f"{axis}, the output channels"
        )
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


def _read_conv(lw: Lowering, node: Node) -> LinearLayer | None:
    weight = read_weight(lw.constants, node.inputs[1], 0)
    if weight is None:
        raise UnsupportedError(f"its weight '{node.inputs[1].name}' is not constant")
    outputs = weight.codes.shape[0]
    rows = weight.codes.reshape(outputs, -1)
    return LinearLayer(
        "Conv",
        node.name,
        node.attrs,
        node.inputs[0],
        _per_output(weight, 0, outputs),
        rows,
        _bias(lw, node, 2, outputs),
    )


def _read_conv_transpose(lw: Lowering, node: Node) -> LinearLayer | None:
    weight = read_weight(lw.constants, node.inputs[1], 1)
    if weight is None:
        raise UnsupportedError(f"its weight '{node.inputs[1].name}' is not constant")
    groups, (inputs, part) = int(node.attrs.get("group", 1)), weight.codes.shape[:2]
    outputs = part * groups
    rows = weight.codes.reshape(groups, inputs // groups, part, -1).transpose(0, 2, 1, 3).reshape(outputs, -1)
    scaled = _per_output(weight, 1, outputs, groups)
    return LinearLayer(
        "ConvTranspose", node.name, node.attrs, node.inputs[0], scaled, rows, _bias(lw, node, 2, outputs)
    )


def _read_gemm(lw: Lowering, node: Node) -> LinearLayer | None:
    across = int(node.attrs.get("transB", 0))
    weight = read_weight(lw.constants, node.inputs[1], 0 if across else 1)
    if weight is None:
        return None
    weight = weight.transposed([1, 0]) if across else weight
    outputs = weight.codes.shape[1]
    bias = _bias(lw, node, 2, outputs) * float(node.attrs.get("beta", 1.0))
    gain, turned = float(node.attrs.get("alpha", 1.0)), bool(node.attrs.get("transA", 0))
    return LinearLayer(
        "Gemm",
        node.name,
        node.attrs,
        node.inputs[0],
        _per_output(weight, 1, outputs),
        weight.codes.T,
        bias,
        gain,
        turned,
    )


def _read_matmul(lw: Lowering, node: Node) -> LinearLayer | None:
    if (
        not lw.constants.is_constant(node.inputs[1])
        or rank_of(node.inputs[1]) != 2
        or lw.constants.is_constant(node.inputs[0])
    ):
        return None
    weight = read_weight(lw.constants, node.inputs[1], 1)
    if weight is None or weight.axis == 0:
        return None
    outputs = weight.codes.shape[1]
    return LinearLayer(
        "Gemm",
        node.name,
        node.attrs,
        node.inputs[0],
        _per_output(weight, 1, outputs),
        weight.codes.T,
        np.zeros(outputs),
    )


def _read_batchnorm(lw: Lowering, node: Node) -> LinearLayer:
    """BatchNormalization: part of the layer before it where no grid lies between, else a depthwise 1x1 convolution.

    The weights of that convolution are +-127 with scale ``|gamma| / sqrt(var + eps) / 127``, so that its bias is that
    much finer than its input's grid.
    """
    gamma, beta, mean, variance = (_parameter(lw, tensor) for tensor in node.inputs[1:5])
    slope = gamma / np.sqrt(variance + float(node.attrs.get("epsilon", 1e-5)))
    before = _layer_behind(lw, node.inputs[0])
    if before is not None and before.outputs == len(slope):
        return _rescaled(before, slope, beta - mean * slope)
    spatial = rank_of(node.inputs[0]) - 2
    if spatial not in (1, 2):
        raise UnsupportedError("it normalizes a tensor of rank 2; fold it into the layer before it (pass 'normalize')")
    codes = (127 * np.sign(slope)).astype(np.int8)
    weight = Weight(codes.reshape(-1, 1, *([1] * spatial)), np.where(slope == 0, 1.0, np.abs(slope) / 127), 0)
    return LinearLayer(
        "Conv", node.name, {"group": len(slope)}, node.inputs[0], weight, codes.reshape(-1, 1), beta - mean * slope
    )


def _layer_behind(lw: Lowering, tensor: Tensor) -> LinearLayer | None:
    """The layer whose result ``tensor`` is."""
    node = producer(tensor)
    if node is None or lw.constants.is_constant(tensor):
        return None
    return with_bias(lw, node) if node.op == "Add" else read_layer(lw, node)


def _rescaled(layer: LinearLayer, slope: NDArray[np.float64], shift: NDArray[np.float64]) -> LinearLayer:
    """``slope * layer + shift``, one slope per output channel."""
    sign = np.sign(slope).astype(np.int16)
    rows = layer.rows * sign[:, None]
    rows = rows.astype(np.int8) if rows.max(initial=0) <= 127 else rows
    scale = layer.weight.scale * np.where(slope == 0, 1.0, np.abs(slope))
    weight = replace(layer.weight, codes=layer.in_onnx_order(rows), scale=scale)
    return replace(layer, weight=weight, rows=rows, bias=layer.bias * slope + shift)


def _parameter(lw: Lowering, tensor: Tensor) -> NDArray[np.float64]:
    value = lw.constants.value(tensor)
    if value is None:
        raise UnsupportedError(f"its parameter '{tensor.name}' is not constant")
    return value.reshape(-1).astype(np.float64)


def with_bias(lw: Lowering, node: Node) -> LinearLayer | None:
    """The layer of ``Add(layer, constant)`` with one constant per output channel; None for other nodes."""
    for index in (0, 1):
        constant, inner = lw.constants.value(node.inputs[1 - index]), producer(node.inputs[index])
        if (
            constant is None
            or inner is None
            or inner.op not in lowered_by("layer")
            or lw.constants.is_constant(node.inputs[index])
        ):
            continue
        layer = read_layer(lw, inner)
        if layer is not None and _along_channels(layer, constant.shape):
            added = np.broadcast_to(constant.reshape(-1).astype(np.float64), (layer.outputs,))
            return replace(layer, bias=layer.bias + added)
    return None


def _along_channels(layer: LinearLayer, shape: tuple[int, ...]) -> bool:
    channel = -1 if layer.kind == "Gemm" else 1 - rank_of(layer.x)
    sizes = [1] * max(len(shape), -channel)
    sizes[len(sizes) - len(shape):] = shape
    others = [size for i, size in enumerate(sizes) if i != len(sizes) + channel]
    return len(sizes) <= rank_of(layer.x) and all(size == 1 for size in others) and sizes[channel] in (1, layer.outputs)
