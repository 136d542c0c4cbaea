"""Outputs with fills: data on an int16 grid that leaves its first and last code free for them.

A constant far outside of a grid saturates, so a fill below the data has the lowest code, one above them the highest;
operators that choose and move values keep them, and the border gives the fill back.
"""

from __future__ import annotations

import numpy as np

from qcompiler.graph.fill_tails import CHOOSING, MOVING
from qcompiler.graph.ir import Node, Tensor, Variable, producer
from qcompiler.graph.value_kinds import FILL_FROM
from qcompiler.lowering.code_grid import CodeGrid, Target
from qcompiler.lowering.engine import Lowering

FREE = 32768 / 32766
"""By how much the grid reaches further than the data, so that these leave its ends free."""


def filled_output(lw: Lowering, tensor: Tensor) -> Tensor | None:
    """An output in which constants of the size of a fill stand beside data, dequantized with them; None for others."""
    fills, data = set[float](), list[Tensor]()
    _look_back(lw, tensor, fills, data)
    low, high = sorted(value for value in fills if value < 0), sorted(value for value in fills if value > 0)
    if not fills or not data or len(low) > 1 or len(high) > 1:
        return None
    bounds = [lw.bounds(each) for each in data]
    largest = max(abs(end) for pair in bounds for end in pair)
    grid = CodeGrid.covering(-FREE * largest, FREE * largest)
    if any(abs(fill) <= grid.scale * grid.qmax for fill in fills):
        return None
    codes = lw.value(tensor, Target.whole(grid, f"{tensor.name}_codes"))
    result = Variable(tensor.name, dtype=tensor.dtype, shape=tensor.shape)
    attrs = {"scale": grid.scale, "zp": 0, "fills": (low[0] if low else None, high[0] if high else None)}
    lw.out.append("Dequantize", [codes.tensor], attrs, [result])
    return result


def _look_back(lw: Lowering, tensor: Tensor, fills: set[float], data: list[Tensor]) -> None:
    """Collect the fills and the data that come out at ``tensor``."""
    known, node = lw.constants.value(tensor), producer(tensor)
    if known is not None:
        values = np.asarray(known, np.float64)
        if values.size and np.all(np.abs(values) >= FILL_FROM):
            fills.update(np.unique(values).tolist())
        else:
            data.append(tensor)
    elif node is None or (node.op not in MOVING and node.op not in CHOOSING):
        data.append(tensor)
    else:
        for operand in _chosen(node):
            _look_back(lw, operand, fills, data)


def _chosen(node: Node) -> list[Tensor]:
    """Operands whose elements come out of a node."""
    if node.op == "Pad":
        return [node.inputs[0], *node.inputs[2:3]]
    return list({"Concat": node.inputs, "Where": node.inputs[1:]}.get(node.op, node.inputs[:1]))


def holds_choice(tensor: Tensor) -> bool:
    """True for what an operator of `CHOOSING` made, moved or not."""
    node = producer(tensor)
    while node is not None and node.op in MOVING:
        node = producer(node.inputs[0])
    return node is not None and node.op in CHOOSING
