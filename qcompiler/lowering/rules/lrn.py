"""LRN: ``y = x * (bias + alpha/size * sum of x^2 over a window of channels)^-beta``, from operators the machine has.

The squares are int16 codes; their window sum is a 1x1 convolution with a band of ones; the power is a table.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qcompiler.errors import UnsupportedError
from qcompiler.graph.ir import Node
from qcompiler.lowering.code_grid import Coded, CodeGrid, Target
from qcompiler.lowering.engine import Bounds, Lowering
from qcompiler.lowering.factors import fixed_points
from qcompiler.lowering.overflow_proof import prove_accumulator
from qcompiler.lowering.ranks import rank_of, size_along
from qcompiler.lowering.rules.binary import multiply


def lower_lrn(lw: Lowering, node: Node, _index: int, target: Target) -> Coded:
    """Rule of LRN."""
    x, channels = lw.natural(node.inputs[0]), size_along(node.inputs[0], 1)
    if channels is None or rank_of(node.inputs[0]) not in (3, 4):
        raise UnsupportedError("it needs an image with a known number of channels")
    largest = max(abs(value) for value in x.bounds) ** 2
    squares = multiply(lw, ((x, 1.0), (x, 1.0)), node, Target.whole(_unsigned(largest), f"{target.name}_squares"))
    band = _band(channels, int(node.attrs["size"]))
    sums = _window_sums(
        lw, node, squares, band, Target.whole(_unsigned(largest * int(band.sum(axis=1).max())), f"{target.name}_sums")
    )
    factor = _power_table(lw, node, sums, f"{target.name}_factor")
    return multiply(lw, ((x, 1.0), (factor, 1.0)), node, target)


def _unsigned(high: float) -> CodeGrid:
    """An int16 grid over [0, high]."""
    return CodeGrid(float(np.float32(max(high, 1e-30) / 65535)), -32768, "int16")


def _band(channels: int, size: int) -> NDArray[np.int8]:
    """1 where channel j belongs to the window of channel i: ``i - (size-1)//2 <= j <= i + size//2``."""
    offset = np.arange(channels)[None, :] - np.arange(channels)[:, None]
    return ((offset >= -((size - 1) // 2)) & (offset <= size // 2)).astype(np.int8)


def _window_sums(lw: Lowering, node: Node, squares: Coded, band: NDArray[np.int8], target: Target) -> Coded:
    channels, spatial = len(band), rank_of(node.inputs[0]) - 2
    bias = np.zeros(channels, np.int32)
    prove_accumulator(band, bias.astype(np.int64), squares)
    m, n = fixed_points(np.full(channels, squares.grid.scale / target.grid.scale))
    ones = [1] * spatial
    attrs = {
        "x_zp": squares.grid.zero_point,
        "strides": ones,
        "dilations": ones,
        "group": 1,
        "kernel_shape": ones,
        "pads": [0] * (2 * spatial),
    }
    operands = [
        squares.tensor,
        lw.out.constant(f"{target.name}_band", band.reshape(channels, channels, *ones)),
        lw.out.constant(f"{target.name}_bias", bias),
        lw.out.int64(f"{target.name}_m", m),
        lw.out.int64(f"{target.name}_n", n),
    ]
    return lw.emit("Conv", operands, attrs, target, node.inputs[0].shape)


def _power_table(lw: Lowering, node: Node, sums: Coded, name: str) -> Coded:
    attrs = node.attrs
    real = np.maximum(sums.grid.dequantize(sums.grid.all_codes()).astype(np.float64), 0.0)
    with np.errstate(divide="ignore"):
        power = (attrs.get("bias", 1.0) + attrs.get("alpha", 1e-4) / int(attrs["size"]) * real) ** -attrs.get(
            "beta", 0.75
        )
    if not np.all(np.isfinite(power)):
        raise UnsupportedError("its bias is 0, so that it divides by 0 where the channels are 0")
    grid = _unsigned(float(power.max()))
    entries = grid.quantize(power)
    table = lw.out.constant(f"{name}_table", entries)
    codes = lw.out.op("Table", name, [sums.tensor, table], {"dtype": grid.dtype}, grid.dtype, node.inputs[0].shape)
    return Coded(codes, grid, int(entries.min()), int(entries.max()))


def lrn_bounds(lw: Lowering, node: Node) -> Bounds:
    """The factor is largest where the channels are 0."""
    low, high = lw.bounds(node.inputs[0])
    factor = float(node.attrs.get("bias", 1.0)) ** -float(node.attrs.get("beta", 0.75))
    return min(low * factor, low), max(high * factor, high)
