"""Binary operators in place of n-ary Sum, Max and Min; Max and Min in place of a Clip with computed bounds.

    Sum(a, b, c) = Add(Add(a, b), c)
    Clip(x, low, high) = Min(Max(x, low), high)

The quantized Add has two operands with one grid each. The order is the one in which onnxruntime adds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...graph.ir import Graph, Node, constant_of
from ...pass_base import Context, Pass
from ...rewriting.match import insert_before, new_variable, standard, take_over

_BINARY = {"Sum": "Add", "Max": "Max", "Min": "Min"}


@dataclass(frozen=True)
class SplitSum(Pass):
    """Make variadic operators binary."""

    name: ClassVar[str] = "split-sum"
    exact: ClassVar[bool] = True

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Rewrite ``graph`` in place; True when a node was split."""
        del ctx
        wide = [node for node in standard(graph, *_BINARY) if len(node.inputs) > (1 if node.op == "Sum" else 2)]
        for node in wide:
            _split(graph, node)
        computed = [
            node
            for node in standard(graph, "Clip")
            if any(bound.name and constant_of(bound) is None for bound in node.inputs[1:])
        ]
        for node in computed:
            _unclip(graph, node)
        return bool(wide or computed)


def _unclip(graph: Graph, node: Node) -> None:
    """Max and Min in place of a Clip."""
    value, output = node.inputs[0], node.outputs[0]
    bounds = [(op, bound) for op, bound in zip(("Max", "Min"), node.inputs[1:], strict=False) if bound.name]
    for index, (op, bound) in enumerate(bounds[:-1]):
        partial = new_variable(graph, f"{output.name}_part{index}", output)
        insert_before(graph, node, Node(op, f"{node.name}_{op}", {}, [value, bound], [partial]))
        value = partial
    op, bound = bounds[-1]
    take_over(graph, node, Node(op, node.name, {}, [value, bound]), output)
    node.inputs.clear()


def _split(graph: Graph, node: Node) -> None:
    op, operands, output = _BINARY[node.op], list(node.inputs), node.outputs[0]
    total = operands[0]
    for index, operand in enumerate(operands[1:-1], 1):
        partial = new_variable(graph, f"{output.name}_part{index}", output)
        partial.shape = None
        insert_before(graph, node, Node(op, f"{node.name}_{index}", {}, [total, operand], [partial]))
        total = partial
    take_over(graph, node, Node(op, node.name, {}, [total, operands[-1]]), output)
    node.inputs.clear()
