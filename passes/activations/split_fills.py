"""A Softmax behind a fill gets scores of its own.

A Softmax does not look below a floor, so what it alone reads may be cut off there; whoever else reads the filled scores
(an ArgMax, an output) looks at the fill itself. So a node that puts a fill beside data is doubled where both sorts read
it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...graph.exactness import passes_to_softmax, puts_fill
from ...graph.ir import STANDARD_DOMAINS, Graph, Node, Tensor, Variable, consumers, names_in, replace_uses, unique_name
from ...graph.mask_inputs import mask_inputs
from ...graph.value_kinds import value_kinds
from ...pass_base import Context, Pass
from ...rewriting.match import insert_before, is_output


@dataclass(frozen=True)
class SplitFills(Pass):
    """Double nodes that put a fill where a mask says, for the Softmax among their readers."""

    name: ClassVar[str] = "split-fills"
    exact: ClassVar[bool] = True

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Rewrite ``graph`` in place; True when a node was doubled."""
        graph.toposort()
        kinds = value_kinds(graph, mask_inputs(graph))
        nodes = [
            node
            for node in graph.nodes
            if node.domain in STANDARD_DOMAINS and node.op in ("Where", "Add", "Sub") and puts_fill(node, kinds)
        ]
        changes = [_split(graph, node) for node in nodes]
        return any(changes)


def _split(graph: Graph, node: Node) -> bool:
    output: Tensor = node.outputs[0]
    users = consumers(output)
    to_softmax = [user for user in users if passes_to_softmax(graph, user, output)]
    if not to_softmax or (len(to_softmax) == len(users) and not is_output(graph, output)):
        return False
    taken = names_in(graph)
    scores = Variable(unique_name(taken, f"{output.name}_scores"), dtype=output.dtype, shape=output.shape)
    replace_uses(graph, output, scores, to_softmax)
    insert_before(
        graph,
        node,
        Node(node.op, unique_name(taken, f"{node.name}_scores"), dict(node.attrs), list(node.inputs), [scores]),
    )
    return True
