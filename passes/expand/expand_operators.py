"""Writes operators that are short for several as those several.

Two kinds: what onnxruntime's optimizer fuses (domain ``com.microsoft``, and operators without domain that only
onnxruntime knows), whose results ONNX's shape inference cannot type; and standard operators that the integer machine
does not have but whose parts it has. The function is the operator's own definition (ContribOperators.md of
onnxruntime, Operators.md of ONNX); rules are in `qcompiler.rewriting.expand_fused` and its neighbours.

A rule declines by returning a reason; the node then stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

from ...graph.ir import STANDARD_DOMAINS, Graph, Node, Tensor, is_float, names_in
from ...pass_base import Context, Pass
from ...rewriting.expand_attention import ATTENTION
from ...rewriting.expand_fused import FUSED
from ...rewriting.expand_heads import FUSED_HEADS, HEADS
from ...rewriting.expand_indices import INDICES
from ...rewriting.expand_matrices import MATRICES
from ...rewriting.expand_places import PLACES
from ...rewriting.expand_standard import STANDARD
from ...rewriting.node_writer import Known, Rule, Writer
from ...shapes.infer import annotate, infer

_OPSET = 20
"""The oldest opset in which all that the rules write exists; the importer moves almost every model beyond it."""


_OF_MACHINE = {**PLACES, **INDICES, **MATRICES}
_OF_INTEGERS = frozenset(
    {"CumSum", "GatherElements", "GatherND", "Pad", "ScatterElements", "ScatterND", "TopK", "Trilu"}
)
"""What the machine has no form of on integers and truth values, either."""


def _rule(node: Node, machine: bool) -> Rule | None:
    if node.domain == "com.microsoft":
        return FUSED.get(node.op) or ATTENTION.get(node.op) or FUSED_HEADS.get(node.op)
    if node.domain not in STANDARD_DOMAINS:
        return None
    if not any(is_float(tensor) for tensor in (*node.inputs, *node.outputs)):
        return _OF_MACHINE[node.op] if machine and node.op in _OF_INTEGERS else None
    return STANDARD.get(node.op) or HEADS.get(node.op) or (_OF_MACHINE.get(node.op) if machine else None)


@dataclass(frozen=True)
class ExpandOperators(Pass):
    """Fused and compound operators as their parts. Declines where an input or attribute has no standard form.

    Attributes:
        machine: also what onnxruntime computes well, but of which the machine has only the parts.
    """

    name: ClassVar[str] = "expand-operators"
    exact: ClassVar[bool] = True
    machine: bool = False

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Rewrite ``graph`` in place; True when an operator was replaced."""
        pending, taken = [node for node in graph.nodes if _rule(node, self.machine) is not None], names_in(graph)
        changed, shared, known = False, dict[tuple[Any, ...], Tensor](), _numbers(graph)
        while pending:
            node = pending.pop(0)
            if graph.opset < _OPSET:
                ctx.declined(node, f"the model could not be moved to opset {_OPSET}, where its parts exist")
                continue
            leaving = {id(tensor) for tensor in graph.outputs}
            written = _expand(graph, Writer(node, taken, shared, leaving, known), _rule(node, self.machine), ctx)
            changed |= bool(written)
            pending += [inner for inner in written if _rule(inner, self.machine) is not None]
        if changed:
            graph.toposort()
            annotate(graph)
        return changed


def _numbers(graph: Graph) -> Known:
    """Elements that shape inference knows of integer tensors; it runs when a rule first asks."""
    values = cache(lambda: infer(graph).values)

    def known(tensor: Tensor) -> list[int | None] | None:
        value = values().get(tensor.name)
        return None if value is None else [item if isinstance(item, int) else None for item in value.ints()]

    return known


def _expand(graph: Graph, writer: Writer, rule: Rule | None, ctx: Context) -> list[Node]:
    """The nodes that took the place of the writer's; none where its rule declines."""
    node = writer.node
    results = None if rule is None else rule(writer, node)
    if isinstance(results, str):
        ctx.declined(node, results)
    if results is None or isinstance(results, str):
        return []
    writer.replace(graph, results)
    return writer.nodes
