"""A layer's weight seen from its output channels and from its input channels, whatever the operator stores."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.graph.ir import Node

__all__ = ["columns_of", "groups_of", "rows_of", "weight_of_rows", "with_columns"]

Array = NDArray[Any]


def groups_of(node: Node) -> int:
    """Number of groups of a layer."""
    return int(node.attrs.get("group", 1))


def _is_transposed(node: Node) -> bool:
    """True where the weight is stored [inputs, outputs]."""
    return node.op == "MatMul" or (node.op == "Gemm" and not node.attrs.get("transB", 0))


def rows_of(node: Node, weight: Array) -> Array:
    """A layer's weight as [output channels, input channels of a group, taps]."""
    if node.op == "Conv":
        return weight.reshape(*weight.shape[:2], -1)
    if node.op == "ConvTranspose":
        groups, (inputs, outputs) = groups_of(node), weight.shape[:2]
        parts = weight.reshape(groups, inputs // groups, outputs, -1)
        return np.swapaxes(parts, 1, 2).reshape(groups * outputs, inputs // groups, -1)
    return (weight.T if _is_transposed(node) else weight)[:, :, None]


def weight_of_rows(node: Node, rows: Array, shape: tuple[int, ...]) -> Array:
    """The weight as it is stored, in its shape; the inverse of `rows_of`."""
    if node.op == "Conv":
        return rows.reshape(shape)
    if node.op == "ConvTranspose":
        groups = groups_of(node)
        parts = rows.reshape(groups, shape[1], shape[0] // groups, -1)
        return np.swapaxes(parts, 1, 2).reshape(shape)
    return rows[:, :, 0].T if _is_transposed(node) else rows[:, :, 0]


def columns_of(node: Node, rows: Array) -> Array:
    """`rows_of` as [input channels, output channels of a group, taps]."""
    groups, per_group, taps = groups_of(node), rows.shape[1], rows.shape[2]
    parts = rows.reshape(groups, -1, per_group, taps)
    return np.swapaxes(parts, 1, 2).reshape(groups * per_group, -1, taps)


def with_columns(node: Node, columns: Array) -> Array:
    """The inverse of `columns_of`."""
    groups = groups_of(node)
    parts = columns.reshape(groups, columns.shape[0] // groups, -1, columns.shape[2])
    return np.swapaxes(parts, 1, 2).reshape(-1, columns.shape[0] // groups, columns.shape[2])
