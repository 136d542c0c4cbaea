"""settle-ranges: grids that were fitted without some feeds become those fitted with all, and only those."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.activations.pairs import set_grid
from qcompiler.calibration.sensitivity import find_pairs
from qcompiler.graph.ir import Feed, Graph, QuantSpec, names_in, producer, read_spec
from qcompiler.manager import Manager
from qcompiler.pass_base import Context, Pass
from qcompiler.passes.activations.quantize_activations import QuantizeActivations
from qcompiler.passes.activations.settle_ranges import SettleRanges
from qcompiler.passes.activations.sign_activations import SignActivations
from qcompiler.passes.activations.widen_activations import WidenActivations
from qcompiler.passes.weights.quantize_weights import QuantizeWeights
from tests.helpers.graphs import graph_of
from tests.passes.rewriting import random

TEXT = "g (float[N, 8] x) => (float[N, 6] y) { a = MatMul(x, w)  b = Relu(a)  c = MatMul(b, v)  y = Add(c, b) }"


def feeds(count: int, size: float, seed: int = 0) -> list[Feed]:
    return [{"x": (size * random(5, 8, seed=seed + number)).astype(np.float32)} for number in range(count)]


def quantized(fitted: list[Feed], held: list[Feed], *passes: Pass) -> tuple[Graph, Context]:
    graph = graph_of(TEXT, w=random(8, 6, seed=1, low=-0.5, high=0.5), v=random(6, 6, seed=2, low=-0.2, high=0.2))
    ctx = Context(data=fitted, held=held)
    Manager([QuantizeActivations(), QuantizeWeights(), *passes]).run(graph, ctx)
    return graph, ctx


def grids(graph: Graph) -> dict[str, tuple[float, int, np.dtype]]:
    found = {}
    for pair in (pair for pair in find_pairs(graph) if not pair.is_weight):
        spec = read_spec(pair.quantize)
        assert spec is not None
        found[pair.name] = (float(spec.scale), int(spec.zero_point), spec.dtype)
    return found


@given(size=st.floats(0.1, 8), seed=st.integers(0, 2**16))
@settings(max_examples=6, deadline=None)
def test_grids_are_those_of_all_feeds(size: float, seed: int) -> None:
    fitted, held = feeds(3, 1), feeds(2, size, 100 + seed)
    graph, ctx = quantized(fitted, held)
    before = grids(graph)
    changed = SettleRanges().run(graph, ctx)
    assert changed == (grids(graph) != before)
    assert grids(graph) == grids(quantized([*fitted, *held], [])[0])
    if size > 2:  # beyond what ranges leave room for: the input's grid holds every feed
        scale, zero, _ = grids(graph)["x"]
        values = np.concatenate([feed["x"] for feed in (*fitted, *held)])
        assert (0 - zero) * scale <= values.min() + scale
        assert values.max() - scale <= (255 - zero) * scale
        assert changed


def test_without_held_out_feeds_nothing_changes() -> None:
    graph, ctx = quantized(feeds(3, 1), [])
    before = grids(graph)
    assert not SettleRanges().run(graph, ctx)
    assert grids(graph) == before


@pytest.mark.parametrize(
    ("form", "dtype", "most"), [(SignActivations(), np.int8, 127), (WidenActivations(), np.int16, 32767)]
)
def test_signed_and_wide_grids_keep_their_form(form: Pass, dtype: type, most: int) -> None:
    graph, ctx = quantized(feeds(3, 1), feeds(2, 6, 100), form)
    before = grids(graph)
    assert SettleRanges().run(graph, ctx)
    after = grids(graph)
    scale, zero, found = after["x"]
    assert found == dtype
    assert scale > 2 * before["x"][0]
    assert (most - zero) * scale >= 0.95 * max(feed["x"].max() for feed in feeds(2, 6, 100))
    assert {name: kind for name, (_, _, kind) in after.items()} == {name: kind for name, (_, _, kind) in before.items()}


def test_grids_that_were_searched_stay() -> None:
    graph, ctx = quantized(feeds(3, 1), feeds(2, 6, 100))
    pair = next(pair for pair in find_pairs(graph) if pair.name == "x")
    searched = QuantSpec.per_tensor(0.37, 11, np.uint8)
    set_grid(pair, searched, names_in(graph))
    others = {name: grid for name, grid in grids(graph).items() if name != "x"}
    assert SettleRanges().run(graph, ctx)
    assert producer(pair.dequantize.inputs[0]) is pair.quantize
    after = grids(graph)
    assert after.pop("x")[:2] == (pytest.approx(0.37), 11)
    assert after != others
