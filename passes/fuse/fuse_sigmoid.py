"""Sigmoid out of its parts.

    1 / (1 + exp(-x)),  exp(x) / (1 + exp(x))        = Sigmoid(x)

Taken apart, its range from 0 to 1 is unknown, and exp(-x) spans decades.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...graph.ir import Graph, Node, Tensor, constant_of, is_float, producer
from ...pass_base import Context, Pass
from ...rewriting.match import made_by, scalar_of, standard, take_over


@dataclass(frozen=True)
class FuseSigmoid(Pass):
    """Recognise Sigmoid."""

    name: ClassVar[str] = "fuse-sigmoid"
    exact: ClassVar[bool] = True

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Rewrite ``graph`` in place; True when one was made."""
        del ctx
        changed = False
        for node in list(standard(graph, "Div", "Reciprocal")):
            x = _argument(node)
            if x is not None and is_float(x) and _keeps_rank(node, x):
                take_over(graph, node, Node("Sigmoid", f"{node.name}_sigmoid", {}, [x]), node.outputs[0])
                changed = True
        if changed:
            graph.cleanup(remove_unused_graph_inputs=False).toposort()
        return changed


def _argument(node: Node) -> Tensor | None:
    """The x of which a quotient or reciprocal is the Sigmoid."""
    if node.op == "Reciprocal" or scalar_of(node.inputs[0]) == 1.0:
        power = _beside_one(node.inputs[-1])
        return None if power is None else _negated(power.inputs[0])
    power = _beside_one(node.inputs[1])
    return power.inputs[0] if power is not None and power.outputs[0] is node.inputs[0] else None


def _keeps_rank(node: Node, x: Tensor) -> bool:
    """True where no constant between ``x`` and the result has more axes than ``x``."""
    rank, pending = 0 if x.shape is None else len(x.shape), list(node.inputs)
    while pending:
        tensor = pending.pop()
        value, writer = constant_of(tensor), producer(tensor)
        if value is not None and value.ndim > rank:
            return False
        if value is None and tensor is not x and writer is not None:
            pending += writer.inputs
    return True


def _beside_one(tensor: Tensor) -> Node | None:
    """The Exp that 1 is added to."""
    total = made_by(tensor, "Add")
    if total is None:
        return None
    for one, power in (total.inputs, total.inputs[::-1]):
        if scalar_of(one) == 1.0:
            return made_by(power, "Exp")
    return None


def _negated(tensor: Tensor) -> Tensor | None:
    """The tensor of which another one is the negative."""
    negative = made_by(tensor, "Neg")
    if negative is not None:
        return negative.inputs[0]
    product = made_by(tensor, "Mul")
    if product is None:
        return None
    for factor, other in (product.inputs, product.inputs[::-1]):
        if scalar_of(factor) == -1.0:
            return other
    return None
