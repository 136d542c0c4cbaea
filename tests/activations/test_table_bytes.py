from __future__ import annotations

import numpy as np
import pytest

from qcompiler.activations.table_bytes import table_bytes
from qcompiler.calibration.sensitivity import find_pairs
from qcompiler.lowering import lower_graph
from qcompiler.manager import Manager
from qcompiler.pass_base import Context
from qcompiler.passes.activations.quantize_activations import QuantizeActivations
from qcompiler.passes.activations.widen_activations import WidenActivations
from qcompiler.passes.weights.quantize_weights import QuantizeWeights
from qcompiler.passes.weights.store_codes import StoreCodes
from tests.helpers.graphs import graph_of
from tests.passes.rewriting import random

TABLE = 131_072


@pytest.mark.parametrize(("op", "most"), [("HardSwish", TABLE), ("HardSigmoid", TABLE), ("Relu", 0), ("Tanh", TABLE)])
def test_no_program_holds_more_tables_than_counted(op: str, most: int) -> None:
    """Counted before any tensor is wide, compared with the tables of the lowered graph in which all are."""
    text = f"""g (float[4, 16] x) => (float[4, 16] y) {{
        a = Gemm(x, w, b)  c = Mul(a, k)  r = {op}(c)  y = Gemm(r, w, b) }}"""
    graph = graph_of(text, w=random(16, 16), b=random(16), k=np.float32(2))
    ctx = Context(data=[{"x": random(4, 16, low=-3, high=3)}])
    Manager([QuantizeActivations(), QuantizeWeights()]).run(graph, ctx)
    counted = sum(table_bytes(graph, [pair]) for pair in find_pairs(graph) if not pair.is_weight)
    assert counted <= most
    Manager([WidenActivations(), StoreCodes()]).run(graph, ctx)
    tables = [node.inputs[1].values for node in lower_graph(graph).nodes if node.op == "Table"]
    assert sum(table.nbytes for table in tables if table.size == 65536) <= counted


def test_a_kink_costs_a_table_and_a_smooth_function_lines() -> None:
    text = "g (float[4, 16] x) => (float[4, 16] y) { a = Gemm(x, w, b)  y = HardSwish(a) }"
    graph = graph_of(text, w=random(16, 16), b=random(16))
    Manager([QuantizeActivations(), QuantizeWeights()]).run(graph, Context(data=[{"x": random(4, 16)}]))
    pairs = {pair.name: pair for pair in find_pairs(graph) if not pair.is_weight}
    assert table_bytes(graph, [pairs["a"]]) == TABLE
    assert table_bytes(graph, [pairs["x"]]) == 0
