"""Gemm for ``MatMul(x, W) + b`` where x has exactly two dimensions.

    Gemm(x, W, b) = x W + b        W [K, N] and b [N] (or broadcastable to it) constant, b finite

With more dimensions Gemm does not exist, and MatMul and Add stay (later stages treat them as one layer).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph.ir import Graph, Node, constant_of
from ...pass_base import Context, Pass
from ...rewriting.match import constant_operand, new_constant, sole_user, standard, take_over
from ...shapes.infer import Shape, infer_shapes


@dataclass(frozen=True)
class FuseMatMulBias(Pass):
    """Make a Gemm of a two-dimensional MatMul and its bias."""

    name: ClassVar[str] = "fuse-matmul-bias"
    exact: ClassVar[bool] = True

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Rewrite ``graph`` in place; True when a Gemm was made."""
        del ctx
        shapes = infer_shapes(graph)
        changes = [_fuse(graph, node, shapes) for node in standard(graph, "MatMul")]
        return any(changes)


def _fuse(graph: Graph, node: Node, shapes: dict[str, Shape]) -> bool:
    x, weight = shapes.get(node.inputs[0].name), constant_of(node.inputs[1])
    add = sole_user(graph, node.outputs[0])
    if x is None or len(x) != 2 or weight is None or weight.ndim != 2 or add is None or add.op != "Add":
        return False
    found = constant_operand(add)
    if (
        found is None
        or found[1].shape not in {(weight.shape[1],), (1, weight.shape[1])}
        or not np.isfinite(found[1]).all()
    ):
        return False
    bias = new_constant(graph, f"{node.name}_bias", np.asarray(found[1]).reshape(-1))
    take_over(graph, add, Node("Gemm", node.name, {}, [node.inputs[0], node.inputs[1], bias]), add.outputs[0])
    return True
