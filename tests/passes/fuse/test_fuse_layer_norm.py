from __future__ import annotations

import numpy as np
import pytest

from qcompiler.passes.fuse.fuse_layer_norm import FuseLayerNorm
from tests.helpers.graphs import graph_of, ops
from tests.passes.rewriting import random, reasons, rewrite

CENTRED = "m = ReduceMean(x, ax)  d = Sub(x, m)  "
VARIANCE = "q = Pow(d, two)  v = ReduceMean(q, ax)  e = Add(v, eps)  "
CONSTANTS = {
    "ax": np.array([-1]), "two": np.float32(2), "one": np.float32(1), "half": np.float32(0.5),
    "minus": np.float32(-0.5), "eps": np.float32(1e-5),
    "g": random(8, seed=1), "b": random(8, seed=2),
}  # fmt: skip
FORMS = {
    "quotient": CENTRED + VARIANCE + "r = Sqrt(e)  n = Div(d, r)  k = Mul(n, g)  y = Add(k, b)",
    "product": CENTRED + "q = Mul(d, d)  v = ReduceMean(q, ax)  e = Add(eps, v)  r = Sqrt(e)  n = Div(d, r)  k = "
    "Mul(g, n)  y = Add(b, k)",
    "reciprocal": CENTRED + VARIANCE + "r = Sqrt(e)  i = Reciprocal(r)  n = Mul(i, d)  k = Mul(n, g)  y = Add(k, b)",
    "one over": CENTRED + VARIANCE + "r = Sqrt(e)  i = Div(one, r)  n = Mul(d, i)  k = Mul(n, g)  y = Add(k, b)",
    "power": CENTRED + VARIANCE + "i = Pow(e, minus)  n = Mul(d, i)  k = Mul(n, g)  y = Add(k, b)",
    "root as power": CENTRED + VARIANCE + "r = Pow(e, half)  n = Div(d, r)  k = Mul(n, g)  y = Add(k, b)",
    "centred twice": CENTRED + VARIANCE + "r = Sqrt(e)  d2 = Sub(x, m)  n = Div(d2, r)  k = Mul(n, g)  y = Add(k, b)",
    "no offset": CENTRED + VARIANCE + "r = Sqrt(e)  n = Div(d, r)  y = Mul(n, g)",
    "plain": CENTRED + VARIANCE + "r = Sqrt(e)  y = Div(d, r)",
}


def graph_with(body: str, **constants: np.ndarray):
    return graph_of(f"g (float[N, L, 8] x) => (float[N, L, 8] y) {{ {body} }}", **{**CONSTANTS, **constants})


@pytest.mark.parametrize("form", FORMS)
def test_fuses(form):
    graph = graph_with(FORMS[form])
    rewrite(graph, FuseLayerNorm(), x=random(2, 3, 8))
    assert ops(graph) == ["LayerNormalization"]
    assert graph.nodes[0].attrs["epsilon"] == np.float32(1e-5)


def test_two_axes():
    graph = graph_with(FORMS["quotient"], ax=np.array([1, 2]), g=random(3, 8), b=random(3, 8, seed=4))
    graph.inputs[0].shape = ["N", 3, 8]
    rewrite(graph, FuseLayerNorm(), x=random(2, 3, 8))
    assert ops(graph) == ["LayerNormalization"]


def test_scale_read_elsewhere_too():
    graph = graph_of(
        f"g (float[N, L, 8] x) => (float[N, L, 8] y, float[N, L, 8] n) {{ {FORMS['quotient']} }}", **CONSTANTS
    )
    rewrite(graph, FuseLayerNorm(), x=random(2, 3, 8))
    assert ops(graph) == ["LayerNormalization", "Mul", "Add"]


def test_declines_channels_first():
    graph = graph_with(FORMS["plain"], ax=np.array([1]))
    ctx = rewrite(graph, FuseLayerNorm(), x=random(2, 3, 8))
    assert "LayerNormalization" not in ops(graph)
    assert "other axes than the last" in reasons(ctx)[0]


@pytest.mark.parametrize(
    "body",
    [
        "q = Pow(x, two)  v = ReduceMean(q, ax)  e = Add(v, eps)  r = Sqrt(e)  n = Div(x, r)  y = Mul(n, g)",
        CENTRED + VARIANCE.replace("Pow(d, two)", "Pow(x, two)") + "r = Sqrt(e)  y = Div(d, r)",
        CENTRED + VARIANCE + "r = Sqrt(e)  y = Div(x, r)",
        CENTRED + VARIANCE + "y = Div(d, e)",
        CENTRED + VARIANCE.replace("ReduceMean(q, ax)", "ReduceMean(q, zero)") + "r = Sqrt(e)  y = Div(d, r)",
    ],
)
def test_leaves_what_only_looks_alike(body):
    graph = graph_with(body, zero=np.array([0]))
    rewrite(graph, FuseLayerNorm(), x=random(2, 3, 8))
    assert "LayerNormalization" not in ops(graph)
