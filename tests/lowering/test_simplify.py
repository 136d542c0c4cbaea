"""Tables in a row become one, exactly, and only where nobody looks between them."""

from __future__ import annotations

import numpy as np
import pytest

from qcompiler.lowering import to_program
from qcompiler.lowering.engine import Lowering
from qcompiler.lowering.prepare import prepared
from qcompiler.lowering.rules.column_grids import COLUMNS
from qcompiler.lowering.rules.elementwise import looked_up
from qcompiler.lowering.rules.integers import INTEGER_RULES
from qcompiler.lowering.rules.table import RULES
from qcompiler.lowering.simplify import simplify
from qcompiler.runtime import Session
from tests.helpers.graphs import graph_of, ops
from tests.lowering.checked import quantize

CHAIN = "k = Constant<value_float=0.7>() a = Sigmoid(x) b = Mul(a, k) c = Tanh(b) {} y = Relu(c)"


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_chain_becomes_one_table_with_the_same_codes(dtype: type[np.integer]) -> None:
    feed = {"x": np.random.default_rng(0).normal(size=(3, 50)).astype(np.float32)}
    graph = quantize(graph_of(f"g (float[3,50] x) => (float[] y) {{ {CHAIN.format('')} }}"), feed, dtype)
    plain = Lowering(prepared(graph), RULES, INTEGER_RULES, looked_up, COLUMNS).run()
    expected = Session(to_program(plain)).raw(feed)["y"]
    short = simplify(plain)
    assert ops(short) == ["Quantize", "Table", "Dequantize"]
    assert np.array_equal(Session(to_program(short)).raw(feed)["y"], expected)


def test_a_result_that_another_node_reads_stays() -> None:
    feed = {"x": np.random.default_rng(0).normal(size=(3, 50)).astype(np.float32)}
    graph = quantize(
        graph_of(f"g (float[3,50] x) => (float[] y, float[] z) {{ {CHAIN.format('z = Mul(b, x)')} }}"), feed
    )
    short = simplify(Lowering(prepared(graph), RULES, INTEGER_RULES, looked_up, COLUMNS).run())
    assert sorted(ops(short)) == ["Dequantize", "Dequantize", "Mul", "Quantize", "Table", "Table"]
