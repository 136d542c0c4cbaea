"""Weights beyond int8 (uint8 codes with a zero point far from 128), exactly: the sum of several int8 weights.

Each piece multiplies its own copy of the input channels, so the layer stays one layer of more input channels.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from qcompiler.errors import UnsupportedError
from qcompiler.lowering.code_grid import Coded
from qcompiler.lowering.engine import Lowering
from qcompiler.lowering.rules.linear import LinearLayer

_LARGEST = 127
_MOST_PIECES = 4


def narrowed(lw: Lowering, layer: LinearLayer, x: Coded) -> tuple[LinearLayer, Coded]:
    """The layer with int8 weights, and its input with the channels those need.

    Raises:
        UnsupportedError: a ConvTranspose, or codes beyond four times int8.
    """
    codes = layer.weight.codes
    if codes.dtype == np.dtype(np.int8):
        return layer, x
    if layer.kind == "ConvTranspose" or np.abs(codes).max(initial=0) > _MOST_PIECES * _LARGEST:
        raise UnsupportedError(
            "its weight codes minus the zero point exceed int8; quantize the weights symmetrically to 8 bits"
        )
    pieces = _pieces(codes)
    axis, inner = (1, 1) if layer.kind == "Conv" else (len(layer.x.shape) - 1, 0)
    groups = int(layer.attrs.get("group", 1)) if layer.kind == "Conv" else 1
    size = codes.shape[inner]
    indices = np.concatenate([np.tile(np.arange(size) + group * size, len(pieces)) for group in range(groups)])
    shape = list(layer.x.shape)
    shape[axis] = len(indices)
    name = f"{layer.name}_channels"
    repeated = lw.out.op(
        "Gather", name, [x.tensor, lw.out.int64(f"{name}_indices", indices)], {"axis": axis}, x.grid.dtype, shape
    )
    whole = np.concatenate(pieces, axis=inner).astype(np.int8)
    rows = whole.reshape(layer.outputs, -1) if layer.kind == "Conv" else whole.T
    return replace(layer, weight=replace(layer.weight, codes=whole), rows=rows), replace(x, tensor=repeated)


def _pieces(codes: NDArray[np.int32]) -> list[NDArray[np.int32]]:
    """int8-sized arrays that add up to ``codes``."""
    rest, pieces = codes.copy(), []
    while np.any(rest):
        piece = np.clip(rest, -_LARGEST, _LARGEST)
        pieces.append(piece)
        rest = rest - piece
    return pieces
