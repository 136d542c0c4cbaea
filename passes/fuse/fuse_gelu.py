"""Gelu out of its parts, in any order of operands.

    erf form:   0.5 x (1 + erf(x / sqrt(2)))
    tanh form:  0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x³)))

Both are recognised as polynomials (see `_polynomial`): with e the erf or the tanh, the result is 0.5 x + 0.5 x e.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sqrt
from typing import ClassVar

from ...graph.ir import Graph, Node, Tensor
from ...pass_base import Context, Pass
from ...rewriting.match import standard, take_over
from ...rewriting.polynomial import ancestors, descendants, matches, polynomial

_OPSET = 20
_INNER = {
    "Erf": {(1,): 1 / sqrt(2)},
    "Tanh": {(1,): sqrt(2 / pi), (3,): 0.044715 * sqrt(2 / pi)},
}
_OUTER = {(1, 0): 0.5, (1, 1): 0.5}


def _argument(node: Node) -> Tensor | None:
    """x, such that the node is applied to the inner polynomial of x."""
    candidates = ancestors(node.inputs[0])
    return next((x for x in candidates if matches(polynomial(node.inputs[0], [x]), _INNER[node.op])), None)


def _result(graph: Graph, node: Node, x: Tensor) -> Tensor | None:
    """The tensor that holds 0.5 x + 0.5 x e."""
    e = node.outputs[0]
    return next((y for y in descendants(graph, e) if matches(polynomial(y, [x, e]), _OUTER)), None)


@dataclass(frozen=True)
class FuseGelu(Pass):
    """Recognise Gelu, exact and by tanh."""

    name: ClassVar[str] = "fuse-gelu"
    exact: ClassVar[bool] = True

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Rewrite ``graph`` in place; True when a Gelu was made."""
        if graph.opset < _OPSET:
            return False
        changes = [_fuse(graph, node, ctx) for node in standard(graph, "Erf", "Tanh")]
        return any(changes)


def _fuse(graph: Graph, node: Node, ctx: Context) -> bool:
    x = _argument(node)
    if x is None:
        return False
    y = _result(graph, node, x)
    if y is None:
        ctx.declined(node, f"its argument is that of a Gelu of '{x.name}', but the result is not")
        return False
    last = y.inputs[0]
    fused = Node("Gelu", last.name, {"approximate": "none" if node.op == "Erf" else "tanh"}, [x])
    take_over(graph, last, fused, y)
    return True
