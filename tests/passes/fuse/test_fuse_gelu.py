from __future__ import annotations

import numpy as np
import pytest

from qcompiler.passes.fuse.fuse_gelu import FuseGelu
from tests.helpers.graphs import graph_of, ops
from tests.passes.rewriting import random, reasons, rewrite

CONSTANTS = {
    "root": np.float32(np.sqrt(2)), "iroot": np.float32(np.sqrt(0.5)), "one": np.float32(1), "half": np.float32(0.5),
    "two": np.float32(2),
    "three": np.float32(3), "k": np.float32(np.sqrt(2 / np.pi)), "c": np.float32(0.044715),
}  # fmt: skip
ERF = {
    "torch": "d = Div(h, root)  e = Erf(d)  a = Add(e, one)  m = Mul(h, a)  y = Mul(m, half)",
    "half first": "d = Div(h, root)  e = Erf(d)  a = Add(one, e)  s = Mul(h, half)  y = Mul(s, a)",
    "half inside": "d = Mul(iroot, h)  e = Erf(d)  a = Add(e, one)  s = Mul(a, half)  y = Mul(s, h)",
    "over two": "d = Mul(h, iroot)  e = Erf(d)  a = Add(one, e)  m = Mul(a, h)  y = Div(m, two)",
    "multiplied out": "d = Div(h, root)  e = Erf(d)  s = Mul(half, h)  m = Mul(s, e)  y = Add(s, m)",
}
INNER = "p = Pow(h, three)  q = Mul(p, c)  r = Add(h, q)  d = Mul(r, k)  e = Tanh(d)  "
TANH = {
    "torch": INNER + "a = Add(e, one)  m = Mul(h, a)  y = Mul(m, half)",
    "tensorflow": INNER + "a = Add(one, e)  s = Mul(half, a)  y = Mul(h, s)",
    "factored": """s = Mul(h, h)  q = Mul(s, c)  r = Add(q, one)  t = Mul(h, k)  d = Mul(t, r)  e = Tanh(d)
                   a = Add(e, one)  z = Mul(h, half)  y = Mul(z, a)""",
}


def graph_with(body: str, **constants: np.ndarray):
    return graph_of(f"g (float[N, 8] x) => (float[N, 8] y) {{ h = Mul(x, two)  {body} }}", **{**CONSTANTS, **constants})


@pytest.mark.parametrize("form", ERF)
def test_fuses_erf(form):
    graph = graph_with(ERF[form])
    rewrite(graph, FuseGelu(), x=random(3, 8))
    assert ops(graph) == ["Mul", "Gelu"]
    assert graph.nodes[1].attrs["approximate"] == "none"


@pytest.mark.parametrize("form", TANH)
def test_fuses_tanh(form):
    graph = graph_with(TANH[form])
    rewrite(graph, FuseGelu(), x=random(3, 8))
    assert ops(graph) == ["Mul", "Gelu"]
    assert graph.nodes[1].attrs["approximate"] == "tanh"


@pytest.mark.parametrize("changed", [{"half": np.float32(0.25)}, {"one": np.float32(0.9)}])
def test_declines_another_result(changed):
    graph = graph_with(ERF["torch"], **changed)
    ctx = rewrite(graph, FuseGelu(), x=random(3, 8))
    assert "Gelu" not in ops(graph)
    assert "the result is not" in reasons(ctx)[0]


def test_leaves_another_argument():
    graph = graph_with(ERF["torch"], root=np.float32(1.5))
    rewrite(graph, FuseGelu(), x=random(3, 8))
    assert "Gelu" not in ops(graph)


def test_leaves_old_opsets_alone():
    graph = graph_of(
        f"g (float[N, 8] x) => (float[N, 8] y) {{ h = Mul(x, two)  {ERF['torch']} }}", opset=19, **CONSTANTS
    )
    rewrite(graph, FuseGelu(), x=random(3, 8))
    assert "Gelu" not in ops(graph)
