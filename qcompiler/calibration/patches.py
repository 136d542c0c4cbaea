"""The rows that a layer multiplies: its weight as a matrix, and samples of the input vectors that meet it.

``y = W x`` for every position of a convolution and every row of a product, with ``W`` [G, R, K]: G groups, R output
channels of a group, K = input channels of a group x taps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.graph.ir import Node
from qcompiler.graph.layers import Layer

__all__ = ["as_matrix", "from_matrix", "products_of_row", "sample_inputs", "taps_first"]

Array = NDArray[Any]


def as_matrix(layer: Layer, weight: Array) -> Array | None:
    """A weight as [G, R, K]; None for a ConvTranspose, whose taps share a scale but not their inputs."""
    if layer.node.op == "ConvTranspose":
        return None
    if layer.node.op == "Conv":
        groups = int(layer.node.attrs.get("group", 1))
        return weight.reshape(groups, weight.shape[0] // groups, -1)
    return (weight if layer.axis == 0 else weight.T)[None]


def from_matrix(layer: Layer, matrix: Array) -> Array:
    """[G, R, K] back in the shape of the layer's weight."""
    if layer.node.op == "Conv":
        return matrix.reshape(layer.values.shape)
    return np.ascontiguousarray(matrix[0] if layer.axis == 0 else matrix[0].T)


def taps_first(layer: Layer) -> NDArray[np.intp]:
    """Indices [K] of a weight's reduction axis in the machine's order: tap by tap, all input channels of each."""
    _, products = products_of_row(layer)
    taps = math.prod(layer.values.shape[2:]) if layer.node.op == "Conv" else 1
    return np.arange(products).reshape(-1, taps).T.reshape(-1)


def products_of_row(layer: Layer) -> tuple[int, int]:
    """(G, K) of a layer that `as_matrix` has a form for."""
    shape = layer.values.shape
    if layer.node.op == "Conv":
        return int(layer.node.attrs.get("group", 1)), math.prod(shape[1:])
    return 1, int(shape[1 - layer.axis])


def sample_inputs(layer: Layer, x: Array, count: int, rng: np.random.Generator) -> Array:
    """Up to ``count`` of the vectors that the layer multiplies, drawn without replacement: float32 [G, P, K].

    Args:
        layer: Conv, Gemm or MatMul.
        x: its input, float32.
        count: how many to draw.
        rng: where the draws come from.
    """
    if layer.node.op == "Conv":
        return _patches(layer.node, layer.values.shape[2:], x, count, rng)
    rows = x.reshape(-1, x.shape[-1])
    return rows[draw_rows(len(rows), count, rng)][None]


def draw_rows(total: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """``count`` different indices below ``total``, ascending; all of them where there are no more."""
    if total <= count:
        return np.arange(total)
    return np.sort(rng.choice(total, count, replace=False))


def _patches(node: Node, kernel: Sequence[int], x: Array, count: int, rng: np.random.Generator) -> Array:
    sizes, rank = x.shape[2:], len(kernel)
    strides, dilations = (list(node.attrs.get(key, [1] * rank)) for key in ("strides", "dilations"))
    begins, outs = [], []
    for axis in range(rank):
        extent = (kernel[axis] - 1) * dilations[axis] + 1
        begin, out = _window(node, axis, sizes[axis], extent, strides[axis])
        begins.append(begin)
        outs.append(out)
    images, *places = np.unravel_index(draw_rows(x.shape[0] * math.prod(outs), count, rng), (x.shape[0], *outs))
    flat: Array = np.zeros((len(images), *[1] * rank), np.int64)
    inside: Array = np.ones((len(images), *[1] * rank), np.bool_)
    for axis, place in enumerate(places):
        taps = place[:, None] * strides[axis] - begins[axis] + np.arange(kernel[axis]) * dilations[axis]
        shape = [len(images), *[1] * rank]
        shape[1 + axis] = kernel[axis]
        flat = flat * sizes[axis] + np.clip(taps, 0, sizes[axis] - 1).reshape(shape)
        inside = inside & ((taps >= 0) & (taps < sizes[axis])).reshape(shape)
    # [C, P, taps]
    channels_first = x.reshape(*x.shape[:2], -1).transpose(1, 0, 2)[:, images[:, None], flat.reshape(len(images), -1)]
    if not inside.all():
        channels_first *= inside.reshape(len(images), -1)
    groups = int(node.attrs.get("group", 1))
    return np.ascontiguousarray(
        channels_first.reshape(groups, -1, *channels_first.shape[1:]).transpose(0, 2, 1, 3)
    ).reshape(groups, len(images), -1)


def _window(node: Node, axis: int, size: int, extent: int, stride: int) -> tuple[int, int]:
    """(padding in front, output size) along a spatial axis."""
    mode = node.attrs.get("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        out = -(-size // stride)
        total = max((out - 1) * stride + extent - size, 0)
        return (total // 2 if mode == "SAME_UPPER" else total - total // 2), out
    pads = node.attrs.get("pads") or []
    rank = len(pads) // 2
    begin, end = (pads[axis], pads[rank + axis]) if pads and mode == "NOTSET" else (0, 0)
    return begin, (size + begin + end - extent) // stride + 1
