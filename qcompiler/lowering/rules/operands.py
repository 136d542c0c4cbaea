"""Operands of the operators: codes with a real factor, and what has codes already."""

from __future__ import annotations

import math

import numpy as np

from qcompiler.graph.ir import Node, Tensor, producer
from qcompiler.lowering.code_grid import Coded, CodeGrid
from qcompiler.lowering.engine import Lowering


def has_codes(tensor: Tensor) -> bool:
    """True for a tensor that is codes already: behind a DequantizeLinear node."""
    node = producer(tensor)
    return node is not None and node.op == "DequantizeLinear"


def integer_grid(tensor: Tensor) -> CodeGrid:
    """The grid on which integers stand for themselves: u8 for bool, int16 (saturating) for the rest."""
    return CodeGrid(1.0, 0, "uint8" if np.dtype(tensor.dtype) in (np.dtype(bool), np.dtype(np.uint8)) else "int16")


def scalar_factor(lw: Lowering, node: Node) -> tuple[Tensor | None, float]:
    """(x, c) of a node that computes ``c * x`` with a scalar constant c; (None, 1.0) for any other node."""
    if node.op == "Neg":
        return node.inputs[0], -1.0
    if node.op not in ("Mul", "Div"):
        return None, 1.0
    left, right = (lw.constants.scalar(tensor) for tensor in node.inputs)
    if right is not None and lw.constants.value(node.inputs[0]) is None:
        return (node.inputs[0], right) if node.op == "Mul" else (node.inputs[0], 1.0 / right if right else math.inf)
    if left is not None and node.op == "Mul" and lw.constants.value(node.inputs[1]) is None:
        return node.inputs[1], left
    return None, 1.0


def operand(lw: Lowering, tensor: Tensor) -> tuple[Coded, float]:
    """Codes and a factor whose product is ``tensor``: scalar factors in front of it cost nothing."""
    factor = 1.0
    node = producer(tensor)
    while node is not None and lw.constants.value(tensor) is None:
        inner, step = scalar_factor(lw, node)
        if inner is None or step == 0.0 or not math.isfinite(step):
            break
        factor, tensor, node = factor * step, inner, producer(inner)
    return lw.natural(tensor), factor
