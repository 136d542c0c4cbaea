"""The integer form of Softmax."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qcompiler.graph.ir import Node
from qcompiler.lowering.code_grid import Coded, Target
from qcompiler.lowering.engine import Bounds, Lowering
from qcompiler.lowering.factors import fixed_point
from qcompiler.lowering.ranks import rank_of


def lower_softmax(lw: Lowering, node: Node, _index: int, target: Target) -> Coded:
    """Rule of Softmax: ``exp`` of the distance to the largest code, as the product of three tables in Q30."""
    x = lw.natural(node.inputs[0])
    tables = [
        lw.out.constant(
            f"{target.name}_exp_{name}",
            np.rint(2.0**30 * np.exp(-x.grid.scale * step * np.arange(size))).astype(np.int32),
        )
        for name, size, step in (("coarse", 32, 2048.0), ("middle", 32, 64.0), ("fine", 64, 1.0))
    ]
    m, n = fixed_point(2.0**-31 / target.grid.scale)
    rank = rank_of(node.inputs[0])
    axis = int(node.attrs.get("axis", -1)) % rank
    codes = lw.emit("Softmax", [x.tensor, *tables], {"axis": axis, "m": m, "n": n}, target, node.outputs[0].shape)
    sums_to_one = axis == rank - 1 and target.lo <= target.grid.zero_point == 0
    return (
        replace(codes, row_sum=-(-m * 2**31 // 2**n)) if sums_to_one else codes
    )  # the Q31 numbers are rounded down: at most 2^31 together


def softmax_bounds(_lw: Lowering, _node: Node) -> Bounds:
    """Probabilities."""
    return 0.0, 1.0
