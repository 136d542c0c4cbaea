"""Runs both branches of an If and takes the results of the one that its condition chooses.

The machine has no jumps, and an If whose condition depends on data (a second network that looks again where the first
one is unsure) is a choice between two results:

    y = If(c, then, else)    ->    y = Where(c, then, else)

Right where the branches compute without side effects, and their results have the same shape whatever the sizes are. It
costs the time of both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...graph.ir import Constant, Graph, Node, Tensor, Variable, names_in, subgraphs, unique_name
from ...pass_base import Context, Pass
from ...rewriting.match import insert_before, new_constant, standard
from ...shapes.dims import same
from ...shapes.infer import Inferred, infer


@dataclass(frozen=True)
class SelectBranches(Pass):
    """Where in the place of an If whose condition is only known when it runs."""

    name: ClassVar[str] = "select-branches"
    exact: ClassVar[bool] = True

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Rewrite ``graph`` in place; True when an If was replaced."""
        changed = False
        for node in standard(graph, "If"):
            reason = _select(graph, node)
            changed |= reason is None
            if reason is not None:
                ctx.declined(node, reason)
        return changed


def _select(graph: Graph, node: Node) -> str | None:
    """Replace an If; the reason why that cannot be."""
    branches: list[Graph] = [node.attrs["then_branch"], node.attrs["else_branch"]]
    if any(subgraphs(inner) for branch in branches for inner in branch.nodes):
        return "its branches hold control flow"
    pairs = list(zip(*(branch.outputs for branch in branches), strict=True))
    known = _inferred(graph, node, branches)
    if not all(_alike(first, second, known) for first, second in pairs):
        return "its branches give tensors whose shapes differ or are unknown"
    taken = names_in(graph)
    for branch in branches:
        _rename(branch, taken)
        for inner in list(branch.nodes):
            insert_before(graph, node, inner)
        branch.nodes.clear()
    condition, nodes = _scalar(graph, node, taken)
    outputs = list(node.outputs)
    node.outputs.clear()
    nodes += [
        Node("Where", unique_name(taken, f"{output.name}_where"), {}, [condition, *pair], [output])
        for output, pair in zip(outputs, pairs, strict=True)
    ]
    for inner in nodes:
        insert_before(graph, node, inner)
    node.inputs.clear()
    node.attrs.clear()
    return None


def _inferred(graph: Graph, node: Node, branches: list[Graph]) -> Inferred:
    """Shapes of the graph and of both branches, as if these stood in front of the If."""
    position = next(index for index, other in enumerate(graph.nodes) if other is node)
    inner = [each for branch in branches for each in branch.nodes]
    whole = Graph(
        nodes=[*graph.nodes[:position], *inner], inputs=graph.inputs, outputs=[], opset=graph.opset,
        import_domains=graph.import_domains,
    )  # fmt: skip
    return infer(whole)


def _alike(first: Tensor, second: Tensor, known: Inferred) -> bool:
    """True for tensors of one type, whose shapes are known and the same."""
    shapes = [
        tuple(tensor.shape) if isinstance(tensor, Constant) else known.shapes.get(tensor.name)
        for tensor in (first, second)
    ]
    if shapes[0] is None or shapes[1] is None or first.dtype != second.dtype or len(shapes[0]) != len(shapes[1]):
        return False
    return all(a is not None and b is not None and same(a, b) for a, b in zip(*shapes, strict=True))


def _rename(branch: Graph, taken: set[str]) -> None:
    for inner in branch.nodes:
        inner.name = unique_name(taken, inner.name)
        for tensor in inner.outputs:
            if tensor.name:
                tensor.name = unique_name(taken, tensor.name)


def _scalar(graph: Graph, node: Node, taken: set[str]) -> tuple[Tensor, list[Node]]:
    """The condition as a tensor of rank 0, and the node that makes it one."""
    condition = node.inputs[0]
    if condition.shape is not None and len(condition.shape) == 0:
        return condition, []
    flat = Variable(unique_name(taken, f"{condition.name}_scalar"), np.dtype(bool), [])
    shape = new_constant(graph, f"{node.name}_no_axes", np.zeros(0, np.int64))
    return flat, [Node("Reshape", flat.name, {}, [condition, shape], [flat])]
