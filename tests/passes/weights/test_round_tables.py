from __future__ import annotations

import numpy as np
import pytest

from qcompiler.errors import OptionError
from qcompiler.graph.ir import Constant, Graph
from qcompiler.graph.runner import Runner
from qcompiler.manager import Manager
from qcompiler.onnx_io import export
from qcompiler.onnx_io.importer import load_graph
from qcompiler.pass_base import Context
from qcompiler.passes.activations.quantize_activations import QuantizeActivations
from qcompiler.passes.weights.round_tables import RoundTables
from qcompiler.passes.weights.store_codes import StoreCodes
from tests.helpers.graphs import graph_of
from tests.passes.rewriting import reasons

FEED = {"x": np.array([[0, 7, 499], [3, 3, 12]])}


def network(text: str = "e = Gather(t, x)  y = Relu(e)") -> Graph:
    rng = np.random.default_rng(0)
    table = (rng.standard_normal((500, 128)) * rng.uniform(0.2, 1, (500, 1))).astype(np.float32)
    return graph_of(f"g (int64[N, 3] x) => (float[N, 3, 128] y) {{ {text} }}", t=table)


@pytest.mark.parametrize("grid", ["nf4", "int4", "kmeans3"])
def test_every_row_is_a_scale_times_levels_near_its_values(grid: str) -> None:
    graph = network()
    before = graph.nodes[0].inputs[0].values
    Manager([RoundTables(grid=grid, smallest=1000)]).run(graph, Context())
    after = graph.nodes[0].inputs[0].values
    assert max(len(np.unique(row)) for row in after) <= (8 if grid == "kmeans3" else 16)
    assert np.sum((after - before) ** 2) / np.sum(before**2) < (0.05 if grid == "kmeans3" else 0.012)


@pytest.mark.parametrize("wide", [False, True])
def test_the_table_leaves_packed_whatever_grid_its_results_get(wide: bool) -> None:
    graph, ctx = (
        network("e = Gather(t, x)  y = ReduceSum(e, a)" if wide else "e = Gather(t, x)  y = Relu(e)"),
        Context(data=[FEED]),
    )
    if wide:
        graph.nodes[1].inputs[1].to_constant(np.array([1]))
    Manager([RoundTables(smallest=1000), QuantizeActivations(), StoreCodes()]).run(graph, ctx)
    model = export.to_model(graph)
    assert model.ByteSize() < 500 * (64 + 16 * (2 if wide else 1)) + 2500
    np.testing.assert_array_equal(Runner(model).run(FEED)["y"], Runner(graph).run(FEED)["y"])
    tables = [
        t.values
        for n in load_graph(model).nodes
        for t in n.inputs
        if isinstance(t, Constant) and t.values.shape == (500, 128)
    ]
    stored = [
        t.values for n in graph.nodes for t in n.inputs if isinstance(t, Constant) and t.values.shape == (500, 128)
    ]
    np.testing.assert_array_equal(tables, stored)


def test_small_tables_and_tables_with_other_uses_keep_their_values() -> None:
    graph, ctx = network(), Context()
    assert not RoundTables().run(graph, ctx)
    graph = network("e = Gather(t, x)  f = MatMul(e, k)  y = Gather(f, z)")
    graph.nodes[1].inputs[1] = graph.nodes[0].inputs[0]
    assert not RoundTables(smallest=1000).run(graph, ctx)
    assert "not only looked up" in reasons(ctx)[0]
    with pytest.raises(OptionError, match="nf5"):
        RoundTables(grid="nf5")
