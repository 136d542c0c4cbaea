"""Counts: what is one, and that a program holds them for lengths that calibration did not show."""

from __future__ import annotations

import numpy as np
import pytest

import qcompiler
from qcompiler.graph.counts import is_count
from qcompiler.graph.runner import Runner
from qcompiler.graph.value_kinds import value_kinds
from tests.helpers.expanding import model_of, real
from tests.helpers.graphs import graph_of


@pytest.mark.parametrize(("body", "expected"), [
    ("f = Cast <to = 1> (m)  y = ReduceSum(f, one)", True),
    ("f = Cast <to = 1> (m)  s = ReduceSum(f, one)  y = Add(s, tiny)", True),
    ("f = Cast <to = 1> (m)  s = ReduceSum(f, one)  y = Clip(s, tiny)", True),
    ("f = Cast <to = 1> (m)  s = ReduceSum(f, one)  y = Mul(s, half)", False),
    ("f = Cast <to = 1> (m)  y = ReduceMean(f, one)", False),
    ("f = Cast <to = 1> (m)  y = Mul(f, half)", False),
    ("y = ReduceSum(x, one)", False),
])  # fmt: skip
def test_what_is_counted(body: str, expected: bool) -> None:
    constants = {"one": np.array([1]), "tiny": np.float32(1e-6), "half": np.float32(0.5)}
    used = {name: value for name, value in constants.items() if name in body}
    graph = graph_of(f"g (bool[N, T] m, float[N, T] x) => (float[N, K] y) {{ {body} }}", **used)
    assert is_count(graph.outputs[0], value_kinds(graph)) is expected


@pytest.mark.parametrize(("kind", "bound", "also"), [
    ("bool", "c = Add(n, tiny)", False), ("int64", "c = Max(n, one)", True), ("float", "c = Add(n, tiny)", True),
    ("float", "c = Clip(n, tiny)", False),
])  # fmt: skip
def test_a_mean_over_more_than_was_seen(kind: str, bound: str, also: bool, request: pytest.FixtureRequest) -> None:
    """Also the logarithm of the count, so that the count itself is read."""
    cast = "f = Identity(m)" if kind == "float" else "f = Cast <to = 1> (m)"
    end = "l = Add(n, one)  g = Log(l)  y = Concat <axis = 1> (d, g)" if also else "y = Identity(d)"
    body = f"""h = MatMul(x, w)  r = Relu(h)  {cast}  u = Unsqueeze(f, last)  k = Mul(r, u)
        s = ReduceSum <keepdims = 0> (k, first)  n = ReduceSum(f, first)  {bound}  d = Div(s, c)  {end}"""
    constants = {"w": 2 * real(0, 4, 8), "last": np.array([2]), "first": np.array([1]), "tiny": np.float32(1e-6)}
    inputs, one = f"float[N, T, 4] x, {kind}[N, T] mask", {"one": np.float32(1)}
    model = model_of(inputs, body.replace("(m)", "(mask)"), **constants, **one)
    for seed in range(request.config.getoption("--graphs") or 1):
        rng = np.random.default_rng(seed)

        def feed(length: int, rng: np.random.Generator = rng) -> dict[str, np.ndarray]:
            kept = np.arange(length) < rng.integers(length // 2, length + 1, (2, 1))
            values = (rng.standard_normal((2, length, 4)) + rng.uniform(-1, 1, (2, 1, 4))).astype(np.float32)
            return {"x": values, "mask": kept.astype(np.float32 if kind == "float" else kind)}

        session = qcompiler.compile(
            model, data=[feed(int(rng.integers(20, 60))) for _ in range(16)], for_onnx=False
        ).session()
        fresh = [feed(int(rng.integers(300, 1500))) for _ in range(4)]
        wanted, got = (np.concatenate([run(each)["y"] for each in fresh]) for run in (Runner(model).run, session.run))
        assert 10 * np.log10(np.square(wanted).sum() / np.square(wanted - got).sum()) >= 20
