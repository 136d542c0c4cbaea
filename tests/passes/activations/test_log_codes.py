"""Decades survive: generated members with few feeds and with many, judged by the float model on fresh ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import qcompiler
from qcompiler.api import Options
from qcompiler.graph.ir import Graph
from qcompiler.graph.runner import Runner
from qcompiler.manager import Manager
from qcompiler.pass_base import Context
from qcompiler.passes.activations.log_codes import LogCodes
from tests.helpers.decade_members import KINDS, magnitudes
from tests.helpers.exact_members import Feed, Member
from tests.helpers.graphs import graph_of, ops

SEEDS = range(3)


def decibels(member: Member, *, for_onnx: bool) -> float:
    compiled = qcompiler.compile(member.model, data=member.calibration, for_onnx=for_onnx)
    run: Callable[[Feed], dict[str, np.ndarray]] = Runner(compiled.graph).run if for_onnx else compiled.session().run
    real = Runner(member.model)
    pairs = [(np.float64(real.run(feed)["y"]), np.float64(run(feed)["y"])) for feed in member.trial]
    noise = sum(np.square(a - b).sum() for a, b in pairs)
    return float(10 * np.log10(sum(np.square(a).sum() for a, _ in pairs) / max(noise, 1e-30)))


@pytest.mark.parametrize("for_onnx", [True, False])
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_decades_survive_in_both_forms(kind: str, seed: int, *, for_onnx: bool) -> None:
    member = KINDS[kind](np.random.default_rng([seed, *map(ord, kind)]))
    assert decibels(member, for_onnx=for_onnx) >= member.wanted["y"]


@pytest.mark.parametrize("for_onnx", [True, False])
@pytest.mark.parametrize("seed", SEEDS)
def test_many_values_do_not_make_them_less_precise(seed: int, *, for_onnx: bool) -> None:
    member = KINDS["by_size"](np.random.default_rng([seed, 7]))
    row = np.concatenate([feed["x"] for feed in member.calibration])
    member.calibration = [{"x": np.tile(np.roll(row, step, axis=1), (4, 1))} for step in range(8)]
    assert decibels(member, for_onnx=for_onnx) >= member.wanted["y"]


@pytest.mark.parametrize("seed", SEEDS)
def test_quiet_magnitudes_of_a_spectrum_survive_on_the_machine(seed: int) -> None:
    member = magnitudes(np.random.default_rng([seed, 11]))
    assert decibels(member, for_onnx=False) >= member.wanted["y"]


@pytest.mark.parametrize("seed", SEEDS)
def test_layers_in_front_read_16_bits_at_any_effort(seed: int) -> None:
    member = magnitudes(np.random.default_rng([seed, 12]))
    compiled = qcompiler.compile(member.model, data=member.calibration, options=Options(level=0), for_onnx=False)
    quantized = [node for node in compiled.graph.inputs[0].outputs if node.op == "QuantizeLinear"]
    assert [np.dtype(node.outputs[0].dtype) for node in quantized] == [np.int16]


def test_a_root_of_what_has_no_logarithm_stays() -> None:
    graph = graph_of("g (float[N, 8] x) => (float[N, 4] y) { r = Sqrt(x)  y = MatMul(r, w) }", w=np.ones((8, 4), "f"))
    rewritten(graph, {"x": spread(64, 8) ** 2})
    assert ops(graph) == ["Sqrt", "MatMul"]


def test_a_root_that_loses_nothing_stays() -> None:
    graph = graph_of(
        "g (float[N, 8] x) => (float[N, 4] y) { q = Mul(x, x)  e = Add(q, one)  r = Sqrt(e)  y = MatMul(r, w) }",
        one=np.float32(1), w=np.ones((8, 4), np.float32),
    )  # fmt: skip
    ctx = Context(data=[{"x": np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32)}])
    Manager([LogCodes()]).run(graph, ctx)
    assert ops(graph) == ["Mul", "Add", "Sqrt", "MatMul"]


def rewritten(graph: Graph, *feeds: Feed) -> Context:
    """Run the pass; the float function stays."""
    before = [Runner(graph).run(feed) for feed in feeds]
    ctx = Context(data=list(feeds))
    Manager([LogCodes()]).run(graph, ctx)
    for feed, wanted in zip(feeds, before, strict=True):
        for name, value in Runner(graph).run(feed).items():
            np.testing.assert_allclose(value, wanted[name], atol=1e-3 * np.abs(wanted[name]).max())
    return ctx


def spread(*shape: int, decades: float = 5.0) -> np.ndarray:
    rng = np.random.default_rng(3)
    return (10.0 ** rng.uniform(-decades / 2, 0, (shape[0], 1)) * rng.standard_normal(shape)).astype(np.float32)


LOGS = "g (float[N, 8] x) => (float[N, 8] y) { q = Mul(x, x)  e = Add(q, eps)  y = Log(e) }"


def test_the_logarithm_of_a_square_is_one_function_of_its_code() -> None:
    graph = graph_of(LOGS, eps=np.float32(1e-8))
    ctx = rewritten(graph, {"x": spread(32, 8)})
    assert [op for op in ops(graph) if op != "Identity"] == ["Abs", "Max", "Log", "Mul", "Sub", "Softplus", "Add"]
    assert {tensor.name for node in graph.nodes[:-1] for tensor in node.outputs} == ctx.inner
    assert "x" in ctx.wide


def test_what_spans_no_decades_stays() -> None:
    graph = graph_of(LOGS, eps=np.float32(1))
    rewritten(graph, {"x": spread(32, 8)})
    assert ops(graph) == ["Mul", "Add", "Log"]


def test_quotients_keep_their_sign() -> None:
    graph = graph_of(
        """g (float[N, 8] x) => (float[N, 8] y) {
            q = Mul(x, x)  m = ReduceMean(q, axes)  s = Sqrt(m)  r = Reciprocal(s)  y = Mul(x, r) }""",
        axes=np.array([1]),
    )  # fmt: skip
    rewritten(graph, {"x": spread(32, 8)})
    assert "Clip" in ops(graph)
    assert "Reciprocal" not in ops(graph)


def test_an_output_between_keeps_its_name_and_value() -> None:
    graph = graph_of(
        "g (float[N, 8] x) => (float[N, 8] y, float[N, 8] e) { q = Mul(x, x)  e = Add(q, eps)  y = Log(e) }",
        eps=np.float32(1e-8),
    )
    rewritten(graph, {"x": spread(32, 8)})
    assert [tensor.name for tensor in graph.outputs] == ["y", "e"]
    direct = graph_of("g (float[N, 8] x) => (float[N, 8] y) { e = Exp(x)  y = Log(e) }")
    rewritten(direct, {"x": 10 * spread(32, 8, decades=0)})
    assert [tensor.name for tensor in direct.inputs] == ["x"]


def test_layers_in_front_have_weights_of_16_bits() -> None:
    graph = graph_of(
        "g (float[N, 8] x) => (float[N, 5] y) { a = MatMul(x, w)  q = Mul(a, a)  e = Add(q, eps)  y = Log(e) }",
        w=spread(8, 5, decades=0), eps=np.float32(1e-8),
    )  # fmt: skip
    rewritten(graph, {"x": spread(32, 8)})
    assert ops(graph).count("MatMul") == 2
