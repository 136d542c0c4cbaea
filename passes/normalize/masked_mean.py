"""The mean over the tokens that a mask keeps, as a quotient of two means instead of two sums.

    sum_t(x_t) / sum_t(m_t)  =  mean_t(x_t) / mean_t(m_t)

Sums grow with the length of the text, so no grid holds them for every length; means lie where the values lie. A lower
bound of the divisor, at most 1 (``Clip(sum, 1e-9)``, ``Max(sum, 1)``), only acts where the count, a whole number, is 0.
There the dividend is 0, too, as the same mask is in it; so any other small bound gives the same quotient. What is added
to the divisor (``sum + 1e-6``), is such a bound where it is negligible beside a count of 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph.ir import Graph, Node, Tensor, Variable, constant_of, names_in, unique_name
from ...graph.operators import MOVEMENT
from ...pass_base import Context, Pass
from ...rewriting.match import constant_operand, insert_before, made_by, new_constant, scalar_of, standard
from ...shapes.infer import infer_shapes
from .clamp_attention_mask import is_integral

SMALL = 1e-6
"""Lower bound of a mask's mean: below that of one token in any text."""


NEGLIGIBLE = 1e-4
"""Largest number added to a count that is as good as a lower bound."""


def _axes(node: Node) -> list[int] | None:
    """The axes of a ReduceSum, from the front; None where they are computed or all."""
    given, shape = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None, node.inputs[0].shape
    if given is None or not given.size or shape is None:
        return None
    return sorted(int(axis) % len(shape) for axis in given.reshape(-1))


def _bounded_sum(tensor: Tensor) -> tuple[Node, Node | None] | None:
    """The sum that a divisor is, and the node that keeps it above a small bound, if there is one."""
    bound = made_by(tensor, "Clip", "Max", "Add")
    if bound is None:
        total = made_by(tensor, "ReduceSum")
        return None if total is None else (total, None)
    counted, least, above = _parts(bound)
    total = None if counted is None else made_by(counted, "ReduceSum")
    most = NEGLIGIBLE if bound.op == "Add" else 1.0
    if total is None or least is None or not 0 < least <= most or above or not is_integral(total.inputs[0]):
        return None
    return total, bound


def _parts(bound: Node) -> tuple[Tensor | None, float | None, bool]:
    """What a node keeps above a bound, the bound, and whether there is one above, too."""
    if bound.op == "Add":
        found = constant_operand(bound)
        number = scalar_of(bound.inputs[0]) or scalar_of(bound.inputs[1])
        return None if found is None else found[0], number, False
    least = scalar_of(bound.inputs[1]) if len(bound.inputs) > 1 else None
    return bound.inputs[0], least, len(bound.inputs) > 2 and (bound.op == "Max" or bool(bound.inputs[2].name))


def _source(tensor: Tensor) -> Tensor:
    """What a mask was before it was spread out."""
    node = made_by(tensor, *MOVEMENT, "Cast")
    while node is not None:
        tensor = node.inputs[0]
        node = made_by(tensor, *MOVEMENT, "Cast")
    return tensor


def _is_masked(total: Node, count: Node) -> bool:
    """True where what ``total`` adds up is 0 wherever what ``count`` counts is."""
    factor, mask = made_by(total.inputs[0], "Mul"), _source(count.inputs[0])
    return factor is not None and any(_source(tensor) is mask for tensor in factor.inputs)


def _same_length(graph: Graph, total: Node, count: Node) -> bool:
    """True where both sums run over equally many elements."""
    axes, others = _axes(total), _axes(count)
    if axes is None or others is None or len(axes) != len(others):
        return False
    factor = made_by(total.inputs[0], "Mul")
    if factor is not None and axes == others and any(tensor is count.inputs[0] for tensor in factor.inputs):
        return True
    known = infer_shapes(graph)
    whole, part = (known.get(node.inputs[0].name) for node in (total, count))
    return whole is not None and part is not None and [whole[axis] for axis in axes] == [part[axis] for axis in others]


@dataclass(frozen=True)
class MaskedMean(Pass):
    """Divide means, not sums."""

    name: ClassVar[str] = "masked-mean"
    exact: ClassVar[bool] = True

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Rewrite ``graph`` in place; True when a quotient of sums was one of a mask."""
        changes = [_rewrite(graph, node, ctx) for node in standard(graph, "Div")]
        return any(changes)


def _rewrite(graph: Graph, node: Node, ctx: Context) -> bool:
    total, divisor = made_by(node.inputs[0], "ReduceSum"), _bounded_sum(node.inputs[1])
    if total is None or divisor is None:
        return False
    count, bound = divisor
    if not _same_length(graph, total, count):
        ctx.declined(node, "its sums may run over different lengths")
        return False
    if bound is not None and not _is_masked(total, count):
        ctx.declined(node, "its dividend need not be 0 where the count is")
        return False
    node.inputs[0] = _mean_of(graph, total, node)
    share = _mean_of(graph, count, node)
    node.inputs[1] = share if bound is None else _bounded(graph, bound, share, node)
    return True


def _mean_of(graph: Graph, node: Node, before: Node) -> Tensor:
    """The mean of what a ReduceSum adds up."""
    output = Variable(
        unique_name(names_in(graph), f"{node.outputs[0].name}_mean"), dtype=np.float32, shape=node.outputs[0].shape
    )
    name = unique_name(names_in(graph), f"{node.name}_mean")
    insert_before(graph, before, Node("ReduceMean", name, dict(node.attrs), list(node.inputs), [output]))
    return output


def _bounded(graph: Graph, node: Node, source: Tensor, before: Node) -> Tensor:
    """What ``node`` is, or stands for, that keeps ``source`` above `SMALL`."""
    output = Variable(
        unique_name(names_in(graph), f"{node.outputs[0].name}_mean"), dtype=np.float32, shape=node.outputs[0].shape
    )
    name = unique_name(names_in(graph), f"{node.name}_mean")
    least = new_constant(graph, f"{name}_least", np.array(SMALL, np.float32))
    op = "Max" if node.op == "Add" else node.op
    insert_before(graph, before, Node(op, name, dict(node.attrs), [source, least], [output]))
    return output
