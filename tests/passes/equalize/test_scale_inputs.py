"""Inputs with columns of very different size: the function stays, and every column counts behind the first grid."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import qcompiler
from qcompiler.graph.ir import Feed
from qcompiler.graph.runner import Runner
from qcompiler.pass_base import Context
from qcompiler.passes.equalize.scale_inputs import ScaleInputs
from tests.helpers.expanding import model_of
from tests.helpers.graphs import graph_of, ops

WAYS = ("folded", "folded into a product", "joined", "far from 0", "sequence")


def _weight(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)


def _table(rng: np.random.Generator, way: str) -> tuple[onnx.ModelProto, list[Feed], list[Feed]]:
    """A network on features whose scaler the exporter folded into the weights, or put behind a Concat."""
    count = int(rng.integers(3, 14))
    size = 10.0 ** (rng.uniform(-2, 5, count) if way != "far from 0" else np.zeros(count))
    mean = size * rng.uniform(-2, 2, count) * (100 if way == "far from 0" else 1)
    first, shift = _weight(rng, count, 24), 0.2 * rng.standard_normal(24)
    constants = {"v": _weight(rng, 24, 3), "d": rng.standard_normal(3).astype(np.float32)}
    shape = (4, count) if way != "sequence" else (2, 5, count)
    inputs = f"float[{', '.join(['N', *map(str, shape[1:])])}] x"
    if way == "joined":
        inputs = ", ".join(f"float[N, 1] x{index}" for index in range(count))
        body = f"x = Concat <axis = 1> ({', '.join(f'x{index}' for index in range(count))})  "
        body += "c = Sub(x, m)  z = Div(c, s)  a = Gemm(z, u, b)  "
        constants |= {"m": mean.astype(np.float32), "s": size.astype(np.float32)}
        constants |= {"u": first, "b": shift.astype(np.float32)}
    else:
        mean = mean if way not in ("folded into a product", "sequence") else 0 * mean
        body = "a = Gemm(x, u, b)  " if way in ("folded", "far from 0") else "a = MatMul(x, u)  "
        constants["u"] = (first / size[:, None]).astype(np.float32)
        if way in ("folded", "far from 0"):
            constants["b"] = (shift - (mean / size) @ first).astype(np.float32)
    body += "h = Relu(a)  o = MatMul(h, v)  y = Add(o, d)"

    def feed() -> Feed:
        values = (mean + size * rng.standard_normal(shape)).astype(np.float32)
        return {f"x{index}": values[:, index:index + 1] for index in range(count)} if way == "joined" else {"x": values}

    return model_of(inputs, body, **constants), [feed() for _ in range(32)], [feed() for _ in range(16)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("for_onnx", [True, False])
def test_every_column_counts(way: str, for_onnx: bool, request: pytest.FixtureRequest) -> None:
    for seed in range(request.config.getoption("--graphs") or 1):
        model, feeds, fresh = _table(np.random.default_rng([seed, *map(ord, way)]), way)
        compiled = qcompiler.compile(model, data=feeds, for_onnx=for_onnx)
        run = Runner(compiled.graph).run if for_onnx else compiled.session().run
        wanted, got = (np.concatenate([answer(feed)["y"] for feed in fresh]) for answer in (Runner(model).run, run))
        assert 10 * np.log10(np.square(wanted).sum() / np.square(wanted - got).sum()) >= 25, seed


@pytest.mark.parametrize("way", [way for way in WAYS if way != "joined"])
def test_the_function_is_the_same(way: str) -> None:
    model, feeds, fresh = _table(np.random.default_rng(5), way)
    graph = qcompiler.load(model)
    before = [Runner(graph).run(feed)["y"] for feed in fresh]
    assert ScaleInputs().run(graph, Context(data=feeds))
    assert "Div" in ops(graph)
    for wanted, feed in zip(before, fresh, strict=True):
        np.testing.assert_allclose(Runner(graph).run(feed)["y"], wanted, rtol=1e-3, atol=1e-3)


def test_columns_of_one_size_and_made_up_feeds_are_left_alone() -> None:
    rng = np.random.default_rng(0)
    graph = graph_of("g (float[N, 6] x) => (float[N, 4] y) { y = MatMul(x, w) }", w=_weight(rng, 6, 4))
    feeds = [{"x": rng.standard_normal((4, 6)).astype(np.float32)} for _ in range(8)]
    assert not ScaleInputs().run(graph, Context(data=feeds))
    assert not ScaleInputs().run(graph, Context())


def test_a_constant_column_keeps_its_size() -> None:
    """What calibration shows of it says nothing of its spread."""
    rng = np.random.default_rng(0)
    weight = _weight(rng, 3, 4) * np.array([[1e-5], [1.0], [1.0]], np.float32)
    text = "g (float[N, 3] x) => (float[N, 4] y) { y = Gemm(x, w, b) }"
    graph, other = graph_of(text, w=weight, b=np.zeros(4, np.float32)), {"x": np.array([[3e4, 1, 2]], np.float32)}
    feeds = [{"x": np.array([[1e5 * rng.standard_normal(), rng.standard_normal(), 0.5]], np.float32)} for _ in range(8)]
    before = Runner(graph).run(other)["y"]
    assert ScaleInputs().run(graph, Context(data=feeds))
    divisor = next(node for node in graph.nodes if node.op == "Div").inputs[1].values
    assert divisor.reshape(-1)[2] == 0.5
    np.testing.assert_allclose(Runner(graph).run(other)["y"], before, rtol=1e-4, atol=1e-5)
