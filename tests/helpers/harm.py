"""A pass that harms a model on purpose, for testing what the compiler says of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcompiler.graph.ir import Constant, Graph
from qcompiler.pass_base import Context, Pass


@dataclass(frozen=True)
class BadGrid(Pass):
    """Gives every output channel of the layers one weight so large that the others round to zero."""

    name: ClassVar[str] = "bad-grid"

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Change the weights of all Conv and Gemm nodes."""
        for node in graph.nodes:
            if node.op in ("Conv", "Gemm"):
                weight = np.array(node.inputs[1].values)
                weight.reshape(len(weight), -1)[:, 0] += 1000 * np.abs(weight).max()
                weight.reshape(len(weight), -1)[:, 0] *= -1
                node.inputs[1] = Constant(f"{node.inputs[1].name}_bad", weight)
        return True
