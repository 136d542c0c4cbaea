from __future__ import annotations

import numpy as np
import pytest

from qcompiler.passes.fuse.fuse_hard_swish import FuseHardSwish
from tests.helpers.graphs import graph_of, ops
from tests.passes.rewriting import random, rewrite

CONSTANTS = {
    name: np.float32(value)
    for name, value in {"zero": 0, "sixth": 1 / 6, "half": 0.5, "one": 1, "three": 3, "six": 6}.items()
}
SWISH = {
    "paddle": "a = Add(h, three)  c = Clip(a, zero, six)  m = Mul(h, c)  y = Div(m, six)",
    "torch": "a = Add(three, h)  c = Clip(a, zero, six)  d = Div(c, six)  y = Mul(d, h)",
    "sixth": "a = Add(h, three)  c = Clip(a, zero, six)  d = Mul(c, sixth)  y = Mul(h, d)",
    "unit": "m = Mul(h, sixth)  a = Add(m, half)  c = Clip(a, zero, one)  y = Mul(h, c)",
    "hard sigmoid": "s = HardSigmoid <alpha = 0.16666667, beta = 0.5> (h)  y = Mul(s, h)",
}
SIGMOID = {
    "over six": ("a = Add(h, three)  c = Clip(a, zero, six)  y = Div(c, six)", 1 / 6),
    "unit": ("m = Mul(h, half)  a = Add(m, half)  y = Clip(a, zero, one)", 0.5),
}


def graph_with(body: str, **constants: np.ndarray):
    return graph_of(f"g (float[N, 8] x) => (float[N, 8] y) {{ h = Identity(x)  {body} }}", **{**CONSTANTS, **constants})


@pytest.mark.parametrize("form", SWISH)
def test_fuses_hard_swish(form):
    graph = graph_with(SWISH[form])
    rewrite(graph, FuseHardSwish(), x=random(4, 8, low=-6, high=6))
    assert ops(graph) == ["Identity", "HardSwish"]


@pytest.mark.parametrize("form", SIGMOID)
def test_fuses_hard_sigmoid(form):
    body, alpha = SIGMOID[form]
    graph = graph_with(body)
    rewrite(graph, FuseHardSwish(), x=random(4, 8, low=-6, high=6))
    assert ops(graph) == ["Identity", "HardSigmoid"]
    np.testing.assert_allclose([graph.nodes[1].attrs["alpha"], graph.nodes[1].attrs["beta"]], [alpha, 0.5], rtol=1e-6)


@pytest.mark.parametrize(
    ("form", "changed"),
    [("paddle", {"six": 5}), ("paddle", {"three": 2}), ("torch", {"zero": -1}), ("unit", {"sixth": 0.2})],
)
def test_leaves_other_numbers(form, changed):
    graph = graph_with(SWISH[form], **{name: np.float32(value) for name, value in changed.items()})
    rewrite(graph, FuseHardSwish(), x=random(4, 8, low=-6, high=6))
    assert "HardSwish" not in ops(graph)


def test_default_hard_sigmoid_is_no_swish():
    graph = graph_with("s = HardSigmoid(h)  y = Mul(s, h)")
    rewrite(graph, FuseHardSwish(), x=random(4, 8, low=-6, high=6))
    assert ops(graph) == ["Identity", "HardSigmoid", "Mul"]


def test_plain_clip_of_an_input_is_a_hard_sigmoid_only_with_unit_height():
    graph = graph_with("y = Clip(h, zero, six)")
    rewrite(graph, FuseHardSwish(), x=random(4, 8, low=-9, high=9))
    assert ops(graph) == ["Identity", "Clip"]
