"""Which int8 weights `vpmaddubsw` multiplies exactly: what runtimes need on x86 CPUs without VNNI.

That instruction multiplies uint8 by int8 and adds two neighbouring products in int16. With activation codes up to ``a``
that is exact where two weights of one sign sum to at most ``(2^15 - 1) / a``: 128 for ``a = 255``. Which weights meet
depends on a runtime's packing, so the rule asks it of the two largest weights of one sign in each output channel,
whatever their order.

onnxruntime 1.32 takes that path for constant int8 weights of Conv, Gemm and MatMul, and first turns int8 activations
into uint8 ones. It does not for depthwise convolutions of one output a channel, transposed convolutions, recurrent
nodes, 16-bit activations, or products of two activations.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.graph.ir import Node, QuantSpec, Tensor, constant_of, producer, quantized_source, spec_of
from qcompiler.graph.layers import Layer, underlying_constant
from qcompiler.grids.grid import LARGEST_LEVEL

__all__ = ["UNLIMITED", "exact_scale", "largest_pair", "pair_limit"]

LARGEST_INT16 = 2**15 - 1
LARGEST_CODE = 255
UNLIMITED = 2 * LARGEST_LEVEL
"""Pair limit that every int8 weight keeps."""

GROWTH = 1 + 1 / 512

Array = NDArray[Any]


def pair_limit(layer: Layer) -> int:
    """Largest sum of two same-sign weight codes with exact products; `UNLIMITED` where they are exact anyway."""
    inputs = spec_of(layer.node.inputs[0])
    if inputs is None or inputs.dtype.itemsize > 1 or layer.node.op == "ConvTranspose" or _one_by_one(layer.node):
        return UNLIMITED
    return min(LARGEST_INT16 // max(_largest_code(layer.node.inputs[0], inputs), 1), UNLIMITED)


def _one_by_one(node: Node) -> bool:
    """True for a depthwise convolution of as many outputs as inputs."""
    weight = underlying_constant(node.inputs[1])
    return (
        node.op == "Conv"
        and weight is not None
        and 1 < int(node.attrs.get("group", 1)) == weight.shape[0]
        and weight.shape[1] == 1
    )


def _largest_code(tensor: Tensor, spec: QuantSpec) -> int:
    """Largest uint8 code of a tensor with a grid: less than 255 behind a Clip (`narrow-activations`)."""
    codes = quantized_source(tensor)
    quantize = None if codes is None else producer(codes)
    source = None if quantize is None else producer(quantize.inputs[0])
    limit = (
        constant_of(source.inputs[2]) if source is not None and source.op == "Clip" and len(source.inputs) > 2 else None
    )
    return LARGEST_CODE if limit is None else int(spec.quantize(limit).max(initial=spec.qmin)) - spec.qmin


def largest_pair(codes: Array, axis: int) -> NDArray[np.int64]:
    """Sum of the two largest same-sign codes per channel along ``axis``: int64 [C]; 0 without two codes."""
    rows = np.moveaxis(codes, axis, 0).reshape(codes.shape[axis], -1).astype(np.int64)
    if rows.shape[1] < 2:
        return np.zeros(len(rows), np.int64)
    positive = np.partition(np.maximum(rows, 0), -2, axis=1)[:, -2:].sum(axis=1)
    negative = np.partition(np.maximum(-rows, 0), -2, axis=1)[:, -2:].sum(axis=1)
    return np.asarray(np.maximum(positive, negative))


def exact_scale(weight: Array, spec: QuantSpec, limit: int) -> NDArray[np.float32]:
    """float32 scales, shaped as in ``spec`` and at least as large, under which each channel keeps its pair limit.

    Args:
        weight: float32 weight.
        spec: its int8 grid, per output channel or per tensor.
        limit: at least 2.
    """
    rows, axis = (weight[None], 0) if spec.axis is None else (weight, spec.axis)
    scale = spec.scale.reshape(-1).astype(np.float64)
    start = scale * np.maximum(largest_pair(spec.quantize(weight).reshape(rows.shape), axis) / limit, 1.0)
    while True:
        result = start.astype(np.float32).reshape(spec.scale.shape)
        codes = QuantSpec(result, spec.zero_point, spec.dtype, spec.axis).quantize(weight).reshape(rows.shape)
        broken = largest_pair(codes, axis) > limit
        if not broken.any():
            return result
        start = np.where(broken, start * GROWTH, start)
