"""Writes operators that are short for several as those several.

Two kinds: what onnxruntime's optimizer fuses (domain ``com.microsoft``, and operators without domain that only
onnxruntime knows), whose results ONNX's shape inference cannot type; and standard operators that the integer machine
does not have but whose parts it has. The function is the operator's own definition (ContribOperators.md of
onnxruntime, Operators.md of ONNX); rules are in `qcompiler.rewriting.expand_fused` and its neighbours.

A rule declines by returning a reason; the node then stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ...graph.ir import STANDARD_DOMAINS, Graph, Node, Tensor, is_float, names_in
from ...pass_base import Context, Pass
from ...rewriting.expand_attention import ATTENTION
from ...rewriting.expand_fused import FUSED
from ...rewriting.expand_standard import STANDARD
from ...rewriting.writer import Rule, Writer
from ...shapes.infer import annotate

_OPSET = 20
"""The oldest opset in which all that the rules write exists; the importer moves almost every model beyond it."""


def _rule(node: Node) -> Rule | None:
    if node.domain == "com.microsoft":
        return FUSED.get(node.op) or ATTENTION.get(node.op)
    floating = any(is_float(output) for output in node.outputs)
    return STANDARD.get(node.op) if node.domain in STANDARD_DOMAINS and floating else None


@dataclass(frozen=True)
class ExpandOperators(Pass):
    """Fused and compound operators as their parts. Declines where an input or attribute has no standard form."""

    name: ClassVar[str] = "expand-operators"
    exact: ClassVar[bool] = True

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Rewrite ``graph`` in place; True when an operator was replaced."""
        pending, taken = [node for node in graph.nodes if _rule(node) is not None], names_in(graph)
        changed, shared = False, dict[tuple[Any, ...], Tensor]()
        while pending:
            node = pending.pop(0)
            if graph.opset < _OPSET:
                ctx.declined(node, f"the model could not be moved to opset {_OPSET}, where its parts exist")
                continue
            written = _expand(graph, Writer(node, taken, shared), ctx)
            changed |= bool(written)
            pending += [inner for inner in written if _rule(inner) is not None]
        if changed:
            graph.toposort()
            annotate(graph)
        return changed


def _expand(graph: Graph, writer: Writer, ctx: Context) -> list[Node]:
    """The nodes that took the place of the writer's; none where its rule declines."""
    node, rule = writer.node, _rule(writer.node)
    results = None if rule is None else rule(writer, node)
    if isinstance(results, str):
        ctx.declined(node, results)
    if results is None or isinstance(results, str):
        return []
    writer.replace(graph, results)
    return writer.nodes
