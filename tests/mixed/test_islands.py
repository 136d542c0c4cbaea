"""Which pieces of a segment stay outside: against a count by hand."""

from __future__ import annotations

import pytest

from qcompiler.graph.ir import Graph
from qcompiler.mixed.dependencies import Reads
from qcompiler.mixed.islands import MACS_AN_ELEMENT, too_small
from qcompiler.mixed.stages import dependencies
from tests.helpers.graphs import graph_of

TEXT = """g (float[1, 8] x) => (float[1, 8] y) { a = Relu(x) b = Hardmax(a) c = Tanh(b) d = Hardmax(c) e = Relu(d)
    y = Neg(e) }"""
ELEMENTS = dict.fromkeys("abcdey", 8)


def small(macs: dict[str, int]) -> set[str]:
    """Operators of what is too small, when the operators of ``macs`` do so much work."""
    graph: Graph = graph_of(TEXT)
    names = {node.op if node.outputs[0].name != "a" else "first": node.name for node in graph.nodes}
    reads = Reads(graph)
    segments = [[names["first"]], [names["Tanh"]], [names["Relu"], names["Neg"]]]
    work = {names[op]: count for op, count in macs.items()}
    found = too_small(graph, reads, dependencies(graph, reads), segments, work, ELEMENTS)
    return {op for op, name in names.items() if name in found}


@pytest.mark.parametrize(("macs", "expected"), [(16 * MACS_AN_ELEMENT, {"Tanh"}), (16 * MACS_AN_ELEMENT + 1, set())])
def test_an_island_pays_for_what_enters_and_leaves_it(macs: int, expected: set[str]) -> None:
    """Eight elements enter it and eight leave it; the others have work enough."""
    assert small({"first": 10**6, "Tanh": macs, "Relu": 10**6}) == expected


def test_inputs_and_outputs_of_the_model_are_not_paid_for() -> None:
    assert small({"first": 8 * MACS_AN_ELEMENT + 1, "Tanh": 10**6, "Neg": 8 * MACS_AN_ELEMENT + 1}) == set()
    assert small({"first": 8 * MACS_AN_ELEMENT, "Tanh": 10**6, "Neg": 8 * MACS_AN_ELEMENT}) == {"first", "Relu", "Neg"}


def test_the_largest_island_stays_whatever_it_costs() -> None:
    assert small({}) == {"first", "Tanh"}
    assert small({"Tanh": 1}) == {"first", "Relu", "Neg"}
