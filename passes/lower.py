"""Replaces every float operator between Q/DQ pairs by integer ones (docs/integer-operators.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..graph.ir import Graph, Stage
from ..lowering import lower_graph
from ..pass_base import Context, Pass


@dataclass(frozen=True)
class Lower(Pass):
    """From QUANTIZED to INTEGER: no float value is left between the graph's inputs and outputs.

    Raises UnsupportedError, naming every node that has no integer form, when some part of the graph was left float.
    """

    name: ClassVar[str] = "lower"
    requires: ClassVar[Stage] = Stage.QUANTIZED
    ensures: ClassVar[Stage] = Stage.INTEGER

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Replace the contents of ``graph``."""
        integer = lower_graph(graph)
        graph.nodes.clear()
        graph.nodes.extend(integer.nodes)
        graph.inputs, graph.outputs = integer.inputs, integer.outputs
        return True
