from __future__ import annotations

import numpy as np

from qcompiler.activations.settle import settle
from qcompiler.graph.ir import QuantSpec, read_spec
from qcompiler.manager import Manager
from qcompiler.pass_base import Context
from qcompiler.passes.activations.quantize_activations import QuantizeActivations
from tests.helpers.graphs import graph_of


def test_only_grids_that_are_still_the_given_ones_change() -> None:
    graph = graph_of("g (float[2, 3] x) => (float[2, 3] y) { a = Exp(x)  y = Sqrt(a) }")
    ctx = Context(data=[{"x": np.float32([[0, 1, 2], [-1, 0.5, 1]])}])
    Manager([QuantizeActivations()]).run(graph, ctx)
    given = {name: grids[0] for name, grids in ctx.final_grids.items()}
    other = QuantSpec.per_tensor(0.5, 3, np.uint8)
    strange = QuantSpec.per_tensor(0.25, 1, np.uint8)
    assert settle(graph, {"x": (given["x"], other), "a": (strange, other)})
    found = {node.inputs[0].name: read_spec(node) for node in graph.nodes if node.op == "QuantizeLinear"}
    assert found["x"] is not None
    assert found["x"].same_as(other)
    assert found["a"] is not None
    assert found["a"].same_as(given["a"])
    assert not settle(graph, {"x": (given["x"], other)})
