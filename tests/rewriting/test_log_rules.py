"""Logarithms written from logarithms are those of the values, over more decades than float32 sums of squares keep."""

from __future__ import annotations

import numpy as np
import pytest

from qcompiler.graph.ir import Graph
from qcompiler.graph.ranges import Range
from qcompiler.graph.runner import Runner
from qcompiler.rewriting.log_rules import log_forms
from tests.helpers.graphs import graph_of

RNG = np.random.default_rng(0)
X = (10.0 ** RNG.uniform(-4, 1, (6, 7)) * RNG.choice([-1, 1], (6, 7))).astype(np.float32)
BANDS = np.maximum(0, 1 - np.abs(np.arange(7)[:, None] - [1.0, 3.5, 5.0]) / 1.6).astype(np.float32)
DENSE = np.abs(RNG.standard_normal((7, 3))).astype(np.float32)

RULES = {
    "Abs": "v = Abs(x)",
    "product": "a = Abs(x)  b = Exp(x)  v = Mul(a, b)",
    "square": "v = Mul(x, x)",
    "quotient": "a = Abs(x)  b = Sigmoid(x)  v = Div(a, b)",
    "powers": "a = Pow(x, two)  b = Pow(a, third)  c = Sqrt(b)  v = Reciprocal(c)",
    "sum": "a = Mul(x, x)  b = Abs(x)  v = Add(a, b)",
    "number": "a = Mul(x, x)  v = Add(eps, a)",
    "row": "a = Mul(x, x)  v = Add(a, row)",
    "bounds": "a = Mul(x, x)  b = Max(a, eps)  c = Min(b, two)  v = Clip(c, eps, two)",
    "sums": "a = Mul(x, x)  v = ReduceSum <keepdims = 0> (a, axes)",
    "mean": "a = Mul(x, x)  v = ReduceMean <keepdims = 1> (a, axes)",
    "all": "a = Mul(x, x)  v = ReduceSum <keepdims = 0> (a)",
    "largest": "a = Mul(x, x)  v = ReduceMax <keepdims = 0> (a, axes)",
    "bands": "a = Mul(x, x)  v = MatMul(a, bands)",
    "bands on the left": "a = Mul(x, x)  t = Transpose <perm = [1, 0]> (a)  v = MatMul(turned, t)",
    "convolution": "a = Mul(x, x)  u = Unsqueeze(a, axes)  t = Transpose <perm = [0, 2, 1]> (u)  v = Conv(t, taps)",
    "softmax": "v = Softmax(x)",
    "softplus": "v = Softplus(x)",
    "joined": "a = Abs(x)  b = Exp(x)  v = Concat <axis = 1> (a, b)",
    "chosen": "a = Abs(x)  b = Exp(x)  c = Greater(x, two)  v = Where(c, a, b)",
    "halves": "p, q = Split <axis = 1> (x, sizes)  r = Mul(p, p)  s = Mul(q, q)  v = Concat <axis = 1> (r, s)",
}
CONSTANTS = {
    "two": np.float32(2), "third": np.float32(1 / 3), "eps": np.float32(1e-5), "axes": np.array([1]),
    "row": np.float32([0.01, 1, 2, 3, 4, 5, 100]), "bands": BANDS, "turned": np.ascontiguousarray(BANDS.T),
    "taps": np.ascontiguousarray(BANDS.T)[..., None], "sizes": np.array([3, 4]),
}  # fmt: skip


def form_of(text: str, **constants: np.ndarray) -> tuple[Graph, str]:
    """A graph with the logarithm of ``v`` beside it, and the name of that."""
    graph = graph_of(f"g (float[6, 7] x) => (float v) {{ {text} }}", **constants)
    forms = log_forms(graph, {*graph.tensors()}, {"x": Range(-10.0, 10.0)})
    form = forms.of(graph.outputs[0])
    assert form is not None
    graph.toposort()
    return graph, form.name


@pytest.mark.parametrize("rule", RULES)
def test_a_form_is_the_logarithm(rule: str) -> None:
    graph, name = form_of(RULES[rule], **{key: value for key, value in CONSTANTS.items() if key in RULES[rule]})
    value, form = (Runner(graph, [each]).run({"x": X})[each] for each in ("v", name))
    assert form.shape == value.shape
    np.testing.assert_allclose(form, np.log(value.astype(np.float64)), atol=2e-3)


def test_a_dense_product_is_one_of_a_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qcompiler.rewriting.log_forms.ALWAYS", 0)
    monkeypatch.setattr("qcompiler.rewriting.log_forms.SPREAD", 0)
    left = "t = Transpose <perm = [1, 0]> (a)  v = MatMul(u, t)"
    for text, weights in (("v = MatMul(a, w)", {"w": DENSE}), (left, {"u": np.ascontiguousarray(DENSE.T)})):
        graph, name = form_of(f"a = Mul(x, x)  {text}", **weights)
        value, form = (Runner(graph, [each]).run({"x": X})[each] for each in ("v", name))
        np.testing.assert_allclose(form, np.log(value.astype(np.float64)), atol=2e-3)


@pytest.mark.parametrize("text", ["v = Neg(x)", "v = Add(x, x)", "a = Abs(x)  v = Sub(a, x)"])
def test_what_may_be_negative_has_none(text: str) -> None:
    graph = graph_of(f"g (float[6, 7] x) => (float v) {{ {text} }}")
    assert log_forms(graph, {*graph.tensors()}, {}).of(graph.outputs[0]) is None
    assert all("log" not in node.name for node in graph.nodes)


def test_channels_of_a_layer_have_grids_of_their_own() -> None:
    weights = (np.float32([1, 1e-3, 1e-1]) * RNG.standard_normal((7, 3))).astype(np.float32)
    graph = graph_of("g (float[6, 7] x) => (float[6, 3] y) { y = Gemm(x, w, b) }", w=weights, b=weights[0])
    output = graph.outputs[0]
    sizes = np.abs(Runner(graph).run({"x": X})["y"]).max(axis=0).astype(np.float64)
    forms = log_forms(graph, {*graph.tensors()}, {}, {"y": sizes})
    form, entry = forms.magnitude(output), forms.entries[0]
    graph.toposort()
    found = Runner(graph, [form.name, entry.name]).run({"x": X})
    np.testing.assert_allclose(np.abs(found[entry.name]).max(axis=0), 1, rtol=1e-5)
    wanted = np.log(np.abs(Runner(graph, ["y"]).run({"x": X})["y"]))
    np.testing.assert_allclose(found[form.name], wanted, atol=1e-2)
