"""ConstantOfShape of floats: the code of its value, everywhere."""

from __future__ import annotations

import numpy as np
from onnx_graphsurgeon import Constant

from qcompiler.graph.ir import Node
from qcompiler.lowering.code_grid import Coded, Target
from qcompiler.lowering.engine import Bounds, Lowering


def _fill(node: Node) -> float:
    value = node.attrs.get("value")
    return 0.0 if value is None else float(np.asarray(value.values).reshape(-1)[0])


def lower_filled(lw: Lowering, node: Node, _index: int, target: Target) -> Coded:
    """One code; beyond the target's limits it saturates."""
    code = min(max(target.grid.code(_fill(node)), target.lo), target.hi)
    value = Constant("value", np.array([code], target.grid.dtype))
    codes = lw.out.op(
        "IntegerConstantOfShape",
        target.name,
        [lw.integer(node.inputs[0])],
        {"value": value},
        target.grid.dtype,
        node.outputs[0].shape,
    )
    return Coded(codes, target.grid, code, code)


def filled_bounds(_lw: Lowering, node: Node) -> Bounds:
    """The value, and 0 for a grid to hold."""
    value = _fill(node)
    return min(value, 0.0), max(value, 0.0)
