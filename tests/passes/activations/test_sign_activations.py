"""sign-activations: int8 codes that stand for the numbers that the uint8 codes stood for."""

from __future__ import annotations

import numpy as np
import pytest

from qcompiler import lowering
from qcompiler.graph.ir import Graph, copy_of, read_spec
from qcompiler.graph.runner import Runner
from qcompiler.manager import Manager
from qcompiler.pass_base import Context
from qcompiler.passes.activations.quantize_activations import QuantizeActivations
from qcompiler.passes.activations.sign_activations import SignActivations
from qcompiler.passes.weights.quantize_weights import QuantizeWeights
from qcompiler.passes.weights.store_codes import StoreCodes
from qcompiler.runtime import Session
from tests.helpers.graphs import graph_of
from tests.passes.rewriting import random

FEEDS = [{"x": random(6, 8, seed=seed)} for seed in range(3)]
TEXT = "g (float[6, 8] x) => (float[8, 8] y) {{ a = MatMul(x, w)  r = Relu(a)  t = Transpose<perm=[1, 0]>(r)  {last} }}"
TWO = TEXT.format(last="y = MatMul(t, r)")
STORED = TEXT.format(last="y = MatMul(c, r)").replace("t = Transpose<perm=[1, 0]>(r)", "")


def network(text: str = TWO) -> Graph:
    graph = graph_of(text, w=random(8, 8), **({"c": random(8, 6, seed=9)} if "(c," in text else {}))
    Manager([QuantizeActivations(), QuantizeWeights()]).run(graph, Context(data=FEEDS))
    return graph


def types(graph: Graph) -> set[np.dtype]:
    specs = [read_spec(node) for node in graph.nodes if node.op == "QuantizeLinear"]
    return {spec.dtype for spec in specs if spec is not None and spec.scale.ndim == 0}


def test_int8_codes_stand_for_the_same_numbers_in_onnxruntime_and_on_the_machine() -> None:
    results = []
    for passes in ((), (SignActivations(),)):
        graph = network()
        Manager([*passes, StoreCodes()]).run(graph, Context(data=FEEDS))
        program = lowering.to_program(lowering.lower_graph(copy_of(graph)))
        results.append((Runner(graph, fusions=False).run(FEEDS[0])["y"], Session(program).run(FEEDS[0])["y"]))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])


def test_scale_stays_and_the_zero_point_moves_by_128() -> None:
    graph = network()
    before = {node.name: read_spec(node) for node in graph.nodes if node.op == "QuantizeLinear"}
    assert np.dtype(np.uint8) in types(graph)
    assert SignActivations().run(graph, Context())
    assert np.dtype(np.uint8) not in types(graph)
    for node in graph.nodes:
        old, new = before.get(node.name), read_spec(node) if node.op == "QuantizeLinear" else None
        if old is not None and new is not None and old.dtype == np.uint8:
            assert (float(new.scale), int(new.zero_point)) == (float(old.scale), int(old.zero_point) - 128)
    assert not SignActivations().run(graph, Context())


@pytest.mark.parametrize(("exact", "left"), [(True, True), (False, False)])
def test_a_constant_that_is_multiplied_stays_where_its_products_could_saturate(exact: bool, left: bool) -> None:
    graph = network(STORED)
    assert SignActivations(exact_pairs=exact).run(graph, Context())
    assert (np.dtype(np.uint8) in types(graph)) == left
