"""Layers: operators that multiply and accumulate, their constant weights, biases, and what is fused behind them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.graph.ir import (
    Constant,
    Graph,
    Node,
    Tensor,
    constant_of,
    consumers,
    producer,
    unique_name,
)
from qcompiler.graph.operators import LAYERS, RECURRENT

__all__ = [
    "BIAS_LIMIT",
    "Layer",
    "add_to_bias",
    "bias_constant",
    "bias_floor",
    "find_layers",
    "fused_activation",
    "fused_bias",
    "has_bias",
    "is_depthwise",
    "output_shift",
    "set_weight",
    "set_weight_scale",
    "share_weight",
    "underlying_constant",
    "weight_axis",
    "weight_pair",
    "weight_slots",
]

ACTIVATABLE = (*LAYERS, "Add")
BIAS_LIMIT = 2.0**29
"""Largest magnitude of a bias in steps of the accumulator."""
_DEFAULT_ACTIVATIONS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"]}


@dataclass(frozen=True)
class Layer:
    """One linear layer of a graph whose weights are constant.

    Attributes:
        node: Conv, ConvTranspose, Gemm or MatMul.
        weight: the tensor at the weight's position: a constant, or the end of its Q/DQ pair.
        axis: output-channel axis of the weight.
        bias_node: the node that reads the bias (the layer itself, or the Add behind a MatMul); None without bias.
        bias_slot: input position of the bias at ``bias_node``.
        output: the last tensor of the fused chain; it is the one with a grid.
    """

    node: Node
    weight: Tensor
    axis: int
    bias_node: Node | None
    bias_slot: int
    output: Tensor

    @property
    def channels(self) -> int:
        """Number of scales of its weight."""
        return int(self.values.shape[self.axis])

    @property
    def values(self) -> NDArray[Any]:
        """The constant behind ``weight``."""
        constant = underlying_constant(self.weight)
        return np.asarray(constant.values if constant is not None else ())


def underlying_constant(tensor: Tensor | None) -> Constant | None:
    """The constant that ``tensor`` is, or that reaches it through Q/DQ nodes alone."""
    while tensor is not None and not isinstance(tensor, Constant):
        node = producer(tensor)
        tensor = node.inputs[0] if node is not None and node.op in ("QuantizeLinear", "DequantizeLinear") else None
    return tensor


def weight_slots(node: Node) -> tuple[int, ...]:
    """Positions of constant weights of a layer or recurrent node that has an integer form; () otherwise."""
    if node.op in RECURRENT:
        return (1, 2) if _plain_recurrent(node) else ()
    if node.op not in LAYERS or len(node.inputs) < 2:
        return ()
    weight = underlying_constant(node.inputs[1])
    if weight is None or underlying_constant(node.inputs[0]) is not None:
        return ()
    if node.op == "MatMul" and len(weight.shape) != 2:
        return ()
    if node.op == "Gemm" and not _plain_gemm(node):
        return ()
    if (
        node.op in ("Conv", "ConvTranspose")
        and len(node.inputs) > 2
        and node.inputs[2].name
        and underlying_constant(node.inputs[2]) is None
    ):
        return ()
    return (1,)


def _plain_gemm(node: Node) -> bool:
    attrs = node.attrs
    if attrs.get("transA", 0) or attrs.get("alpha", 1.0) != 1.0:
        return False
    if len(node.inputs) < 3 or not node.inputs[2].name:
        return True
    bias, weight = underlying_constant(node.inputs[2]), underlying_constant(node.inputs[1])
    if bias is None or weight is None or attrs.get("beta", 1.0) != 1.0:
        return False
    channels = weight.shape[0 if attrs.get("transB", 0) else 1]
    return int(np.prod(bias.shape)) in (1, channels) and (not bias.shape or bias.shape[-1] in (1, channels))


def _plain_recurrent(node: Node) -> bool:
    attrs, directions = node.attrs, 2 if node.attrs.get("direction", "forward") == "bidirectional" else 1
    constants = [underlying_constant(tensor) for tensor in node.inputs[1:4] if tensor.name]
    peephole = len(node.inputs) > 7 and bool(node.inputs[7].name)
    default = _DEFAULT_ACTIVATIONS[node.op] * directions
    usual = (
        list(attrs.get("activations", default)) == default
        and not attrs.get("activation_alpha")
        and not attrs.get("activation_beta")
    )
    special = "clip" in attrs or attrs.get("input_forget", 0) or attrs.get("layout", 0)
    return all(tensor is not None for tensor in constants) and not peephole and usual and not special


def weight_axis(node: Node, slot: int) -> int:
    """Output-channel axis of the weight at ``slot``; groups of a ConvTranspose and LSTM directions share scales."""
    if node.op == "Gemm":
        return 0 if node.attrs.get("transB", 0) else 1
    return 0 if node.op == "Conv" else 1


def _only_reader(graph: Graph, tensor: Tensor) -> Node | None:
    readers = consumers(tensor)
    if len(readers) != 1 or any(tensor is out for out in graph.outputs):
        return None
    return readers[0]


def fused_bias(graph: Graph, node: Node) -> Node | None:
    """The ``Add(constant)`` behind a MatMul with constant weights that is its bias."""
    if node.op != "MatMul" or not weight_slots(node):
        return None
    reader = _only_reader(graph, node.outputs[0])
    if reader is None or reader.op != "Add":
        return None
    other = underlying_constant(reader.inputs[1 if reader.inputs[0] is node.outputs[0] else 0])
    if other is None or other.dtype not in (np.float32, np.int32):
        return None
    shape, columns = tuple(other.shape), underlying_constant(node.inputs[1]).shape[1]  # type: ignore[union-attr]
    size, rank = int(np.prod(shape)), len(node.outputs[0].shape or ()) or 1
    fits = (size == 1 or (size == columns and shape[-1] == columns)) and bool(np.isfinite(other.values).all())
    return reader if fits and len(shape) <= rank else None


def fused_activation(graph: Graph, node: Node) -> Node | None:
    """The Relu or Clip (constant bounds) that alone reads a layer's or an Add's output."""
    if node.op not in ACTIVATABLE or len(node.outputs) != 1 or node.outputs[0].dtype != np.float32:
        return None
    reader = _only_reader(graph, node.outputs[0])
    if reader is None or reader.op not in ("Relu", "Clip"):
        return None
    bounds = [tensor for tensor in reader.inputs[1:] if tensor.name]
    return None if any(constant_of(tensor) is None for tensor in bounds) else reader


def bias_constant(layer: Layer) -> Constant | None:
    """The stored bias of a layer."""
    return None if layer.bias_node is None else underlying_constant(layer.bias_node.inputs[layer.bias_slot])


def is_depthwise(node: Node) -> bool:
    """True for a convolution of one input channel a group."""
    weight = underlying_constant(node.inputs[1])
    return node.op == "Conv" and node.attrs.get("group", 1) > 1 and weight is not None and weight.shape[1] == 1


def find_layers(graph: Graph) -> Iterator[Layer]:
    """The layers with constant weights, in graph order."""
    for node in graph.nodes:
        if node.op not in LAYERS or not weight_slots(node):
            continue
        add = fused_bias(graph, node)
        bias_node, slot = (add, 1 if add.inputs[0] is node.outputs[0] else 0) if add is not None else (None, 2)
        if add is None and len(node.inputs) > 2 and node.inputs[2].name:
            bias_node = node
        last = add or node
        last = fused_activation(graph, last) or last
        yield Layer(node, node.inputs[1], weight_axis(node, 1), bias_node, slot, last.outputs[0])


def weight_pair(layer: Layer) -> tuple[Node, Node] | None:
    """The QuantizeLinear and DequantizeLinear between a layer and its float weight; None without them."""
    dequantize = producer(layer.weight)
    quantize = (
        producer(dequantize.inputs[0]) if dequantize is not None and dequantize.op == "DequantizeLinear" else None
    )
    is_float = (
        quantize is not None and isinstance(quantize.inputs[0], Constant) and quantize.inputs[0].dtype == np.float32
    )
    return (quantize, dequantize) if is_float and dequantize is not None and quantize is not None else None


def set_weight(
    layer: Layer, values: NDArray[np.float32], scale: NDArray[np.float32], taken: set[str], suffix: str
) -> None:
    """Give a layer with a `weight_pair` other float weights (under a derived name) and other scales [C]."""
    pair = weight_pair(layer)
    if pair is None:
        return
    quantize, _ = pair
    shape = quantize.inputs[1].shape
    quantize.inputs[0] = Constant(
        unique_name(taken, f"{quantize.inputs[0].name}_{suffix}"), np.ascontiguousarray(values)
    )
    set_weight_scale(layer, scale.reshape(shape), taken)


def share_weight(layer: Layer, other: Layer) -> None:
    """Let a layer read the float weight and the scales of another one that reads the same weight."""
    mine, theirs = weight_pair(layer), weight_pair(other)
    for node, source in zip(mine or (), theirs or (), strict=True):
        node.inputs[1] = source.inputs[1]
    if mine is not None and theirs is not None:
        mine[0].inputs[0] = theirs[0].inputs[0]


def set_weight_scale(layer: Layer, scale: NDArray[np.float32], taken: set[str]) -> None:
    """Give the Q/DQ pair of a layer's weight other scales, of the shape it has."""
    dequantize = producer(layer.weight)
    quantize = None if dequantize is None else producer(dequantize.inputs[0])
    constant = Constant(unique_name(taken, f"{layer.node.name}_weight_scale"), scale)
    for node in (quantize, dequantize):
        if node is not None:
            node.inputs[1] = constant


def add_to_bias(layer: Layer, shift: NDArray[Any], taken: set[str]) -> None:
    """Add ``shift`` [C] to a layer's float bias. A Conv or Gemm without bias gets one; a MatMul must have its Add."""
    if layer.bias_node is not None:
        old = layer.bias_node.inputs[layer.bias_slot]
        values = np.broadcast_to(np.asarray(old.values, np.float64).reshape(-1), shift.shape) + shift
        layer.bias_node.inputs[layer.bias_slot] = Constant(
            unique_name(taken, f"{old.name}_corrected"), values.astype(np.float32)
        )
        return
    bias = Constant(unique_name(taken, f"{layer.output.name}_bias"), shift.astype(np.float32))
    if len(layer.node.inputs) > 2:
        layer.node.inputs[2] = bias
    else:
        layer.node.inputs.append(bias)


def output_shift(layer: Layer, error: NDArray[Any], mean: NDArray[Any]) -> NDArray[Any]:
    """``sum error[o] mean`` for each output channel o.

    Args:
        layer: a layer.
        error: float64, of the weight's shape.
        mean: float64, mean of each input channel.
    """
    node = layer.node
    if node.op == "MatMul" or (node.op == "Gemm" and layer.axis == 1):
        return np.asarray(np.einsum("k,ko->o", mean, error))
    if node.op == "Gemm":
        return np.asarray(np.einsum("ok,k->o", error, mean))
    taps = error.reshape(*error.shape[:2], -1).sum(axis=2)
    groups = int(node.attrs.get("group", 1))
    grouped, by_group = taps.reshape(groups, -1, taps.shape[1]), mean.reshape(groups, -1)
    if node.op == "Conv":
        return np.asarray(np.einsum("goi,gi->go", grouped, by_group)).reshape(-1)
    return np.asarray(np.einsum("gio,gi->go", grouped, by_group)).reshape(-1)


def has_bias(layer: Layer) -> bool:
    """True where a layer has a float bias that may change, or can get one: a MatMul without an Add cannot."""
    if layer.bias_node is None:
        return bool(layer.node.op != "MatMul")
    return isinstance(layer.bias_node.inputs[layer.bias_slot], Constant)


def bias_floor(bias: NDArray[Any] | None, input_scale: float, channels: int) -> NDArray[Any]:
    """Smallest scales [C] that keep the bias within `BIAS_LIMIT` steps; the groups of a ConvTranspose share them."""
    if bias is None:
        return np.zeros(channels)
    values = np.abs(np.asarray(bias, np.float64)).reshape(-1)
    by_scale = values.reshape(-1, channels).max(axis=0) if values.size > 1 else np.broadcast_to(values, (channels,))
    return np.asarray(by_scale / (input_scale * BIAS_LIMIT))
