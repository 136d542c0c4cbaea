"""Replaces an If whose condition is constant by the branch that is taken.

Exporters of scripted models write ``If(x.shape[1] == 1)`` around a Squeeze; once the shapes are folded the condition is
a number. The nodes of the branch move into the graph, under names of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph.ir import (
    Constant,
    Graph,
    Node,
    Tensor,
    Variable,
    constant_of,
    names_in,
    producer,
    replace_uses,
    unique_name,
)
from ...pass_base import Context, Pass
from ...rewriting.match import insert_before, is_output, new_constant, standard
from ...shapes.infer import annotate, infer


@dataclass(frozen=True)
class InlineIf(Pass):
    """Take the branch of an If that a constant condition chooses."""

    name: ClassVar[str] = "inline-if"
    exact: ClassVar[bool] = True

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Rewrite ``graph`` in place; True when an If was replaced."""
        changed = False
        # again for those that were inside a branch, or whose condition is now known
        while _inline_once(graph) or _decide(graph):
            changed = True
        for node in standard(graph, "If"):
            reason = (
                "an output of the graph would become a constant or a tensor of another name"
                if constant_of(node.inputs[0]) is not None
                else None
            )
            ctx.declined(node, reason or "its condition is only known when it runs")
        return changed


def _decide(graph: Graph) -> bool:
    """Give each If, nested ones included, a constant condition where it follows from sizes."""
    waiting = [node for node in standard(graph, "If") if constant_of(node.inputs[0]) is None]
    if not waiting:
        return False
    graph.toposort()
    annotate(graph)
    values = infer(graph).values
    decided = False
    for node in waiting:
        value = values.get(node.inputs[0].name)
        if value is not None and value.is_known:
            condition = np.array([bool(item) for item in value.ints()]).reshape(value.items.shape)
            node.inputs[0] = new_constant(graph, f"{node.name}_condition", condition)
            decided = True
    return decided


def _inline_once(graph: Graph) -> bool:
    taken = [_inline(graph, node) for node in standard(graph, "If") if constant_of(node.inputs[0]) is not None]
    return any(taken)


def _inline(graph: Graph, node: Node) -> bool:
    """Put the branch in the place of ``node``; False when an output of the graph forbids it."""
    taken_branch = bool(np.asarray(constant_of(node.inputs[0])).reshape(-1)[0])
    branch: Graph = node.attrs["then_branch" if taken_branch else "else_branch"]
    own = {id(inner) for inner in branch.nodes}
    results = list(zip(node.outputs, branch.outputs, strict=True))
    if any(is_output(graph, output) and not _is_written_inside(result, own) for output, result in results):
        return False
    names = names_in(graph)
    for inner in branch.nodes:
        inner.name = unique_name(names, inner.name)
        for tensor in inner.outputs:
            if tensor.name:
                tensor.name = unique_name(names, tensor.name)
    node.outputs.clear()
    for inner in list(branch.nodes):
        insert_before(graph, node, inner)
    for output, result in results:
        _connect(graph, output, result, own)
    node.inputs.clear()
    node.attrs.clear()
    branch.nodes.clear()
    return True


def _is_written_inside(tensor: Tensor, own: set[int]) -> bool:
    writer = producer(tensor)
    return isinstance(tensor, Variable) and writer is not None and id(writer) in own


def _connect(graph: Graph, output: Tensor, result: Tensor, own: set[int]) -> None:
    """Let the branch write ``output``; a constant or an outer tensor takes its place instead."""
    writer = producer(result)
    if isinstance(result, Constant) or writer is None or id(writer) not in own:
        replace_uses(graph, output, result)
        return
    writer.outputs[next(index for index, tensor in enumerate(writer.outputs) if tensor is result)] = output
    for user in list({id(reader): reader for reader in result.outputs}.values()):
        for index, tensor in enumerate(user.inputs):
            if tensor is result:
                user.inputs[index] = output
