"""Float inputs that are ids: whole numbers, which a model casts to integers itself."""

from __future__ import annotations

import numpy as np
import pytest

from qcompiler.activations.whole_inputs import whole_inputs
from qcompiler.api import Options, compile
from qcompiler.errors import NoIntegerFormError
from qcompiler.graph.runner import Runner
from qcompiler.onnx_io.importer import load_graph
from qcompiler.runtime import Session
from tests.helpers.expanding import model_of, real

ROWS = 300
MASKED = """z = Equal(x, zero)  n = Not(z)  f = Cast <to = 1> (n)  m = Unsqueeze(f, last)  h = Mul(e, m)
    t = ReduceSum <keepdims = 0> (h, one)"""
PLAIN = "t = ReduceMean <keepdims = 0> (e, one)"


def embedding(rest: str) -> object:
    """As Keras exports: ids are floats, and 0 is padding."""
    constants = {
        "zero": np.float32(0), "last": np.array([2]), "one": np.array([1]), "w": real(2, 8, 6), "u": real(1, ROWS, 8),
    }  # fmt: skip
    body = f"i = Cast <to = 6> (x)  e = Gather(u, i)  {rest}  g = MatMul(t, w)  y = Tanh(g)"
    return model_of("float[N, T] x", body, **constants)


def ids(seed: int, most: int = ROWS) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).integers(0, most, (2, 7)).astype(np.float32)}


@pytest.mark.parametrize("rest", [MASKED, PLAIN], ids=["masked", "plain"])
@pytest.mark.parametrize("given", [True, False])
def test_rows_beyond_those_that_were_seen_are_found(rest: str, given: bool) -> None:
    model = embedding(rest)
    feeds = [ids(seed, 40) for seed in range(12)] if given else None
    result = compile(model, data=feeds, options=Options(1), for_onnx=False)
    session, reference = Session(result.program), Runner(model)
    for seed in range(20, 26):
        feed = ids(seed)
        expected, got = reference.run(feed)["y"], session.run(feed)["y"]
        assert 10 * np.log10(np.square(expected).sum() / np.square(expected - got).sum()) > 20


def test_feeds_that_are_no_whole_numbers_are_refused() -> None:
    feeds = [{"x": ids(seed)["x"] + np.float32(0.5)} for seed in range(4)]
    with pytest.raises(NoIntegerFormError, match="it needs the range of 'x'"):
        compile(embedding(PLAIN), data=feeds, options=Options(0), for_onnx=False).program  # noqa: B018


@pytest.mark.parametrize(("value", "found"), [(7.0, True), (7.25, False), (40_000.0, False)])
def test_what_counts_as_ids(value: float, found: bool) -> None:
    graph = load_graph(embedding(PLAIN))
    assert bool(whole_inputs(graph, [ids(0), {"x": np.full((2, 7), value, np.float32)}])) == found
