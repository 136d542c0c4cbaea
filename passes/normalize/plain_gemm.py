"""Gemm in its plain form ``x W + c``, which is the one that has an integer form.

    alpha (A') W + beta c = x (alpha W) + (beta c)

W and c are constant; x is Transpose(A) where transA is set, else A.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph.ir import Graph, Node
from ...pass_base import Context, Pass
from ...rewriting.fold_into_layer import fold, why_not
from ...rewriting.match import insert_before, new_variable, standard


@dataclass(frozen=True)
class PlainGemm(Pass):
    """Fold alpha and beta of Gemm into its constants, and put its transA into a Transpose."""

    name: ClassVar[str] = "plain-gemm"
    exact: ClassVar[bool] = True

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Rewrite ``graph`` in place; True when a Gemm was changed."""
        changes = [_simplify(graph, node, ctx) for node in standard(graph, "Gemm")]
        return any(changes)


def _simplify(graph: Graph, node: Node, ctx: Context) -> bool:
    scaled = node.attrs.get("alpha", 1.0) != 1.0 or node.attrs.get("beta", 1.0) != 1.0
    transposed = bool(node.attrs.get("transA", 0))
    if not scaled and not transposed:
        return False
    reason = why_not(node, shift=False)
    if reason is not None:
        ctx.declined(node, reason.replace("the layer before it", "it").replace("of it", "of the Gemm"))
        return False
    if scaled:
        fold(graph, node, np.ones(1), np.zeros(1))
    if transposed:
        del node.attrs["transA"]
        x = node.inputs[0]
        turned = new_variable(graph, f"{x.name}_transposed", x)
        turned.shape = None if x.shape is None else list(reversed(x.shape))
        insert_before(graph, node, Node("Transpose", f"{node.name}_transpose", {"perm": [1, 0]}, [x], [turned]))
        node.inputs[0] = turned
    return True
