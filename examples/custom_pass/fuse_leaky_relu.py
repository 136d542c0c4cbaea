"""Leaky ReLU as some frameworks write it, ``max(x, a x)`` with a slope ``a`` in [0, 1], becomes one LeakyRelu operator.

For x >= 0, a x <= x, so the maximum is x; for x < 0, a x >= x, so it is a x: LeakyRelu, exactly. As two operators the
compiler gives the product a grid of its own; as one it is a single table on the integer machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from qcompiler import Context, Pass
from qcompiler.graph.ir import Graph, Node, Tensor, constant_of, producer


@dataclass(frozen=True)
class FuseLeakyRelu(Pass):
    """Replaces Max(x, Mul(x, a)), in either order of the operands. Exact.

    Declines when the slope is not one constant number, or lies outside [0, 1], where the maximum is another function.

    Attributes:
        max_slope: leave steeper ones alone.
    """

    name: ClassVar[str] = "fuse-leaky-relu"
    exact: ClassVar[bool] = True
    max_slope: float = 1.0

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Rewrite every place that matches; True when there was one."""
        places = [node for node in graph.nodes if node.op == "Max" and len(node.inputs) == 2]
        return sum(self._fuse(node, ctx) for node in places) > 0

    def _fuse(self, node: Node, ctx: Context) -> bool:
        found = _scaled_copy(*node.inputs) or _scaled_copy(*reversed(node.inputs))
        if found is None:
            return False
        source, factor = found
        slope = constant_of(factor)
        if slope is None or slope.size != 1:
            ctx.declined(node, "the slope is not one constant number")
            return False
        if not 0 <= slope.item() <= self.max_slope:
            ctx.declined(node, f"the slope {slope.item():g} is outside [0, {self.max_slope:g}]")
            return False
        node.op, node.attrs, node.inputs = "LeakyRelu", {"alpha": float(slope.item())}, [source]
        return True


def _scaled_copy(source: Tensor, product: Tensor) -> tuple[Tensor, Tensor] | None:
    """(source, factor) when ``product`` is source times something; None otherwise."""
    mul = producer(product)
    if mul is None or mul.op != "Mul":
        return None
    first, second = mul.inputs
    if first is source:
        return source, second
    return (source, first) if second is source else None
