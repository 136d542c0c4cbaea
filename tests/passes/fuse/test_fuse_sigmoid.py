from __future__ import annotations

import numpy as np
import pytest

import qcompiler
from qcompiler.graph.runner import Runner
from qcompiler.passes.fuse.fuse_sigmoid import FuseSigmoid
from tests.helpers.expanding import model_of
from tests.helpers.graphs import graph_of, ops
from tests.passes.rewriting import random, rewrite

ONE, MINUS = np.float32(1), np.float32(-1)
FORMS = (
    "n = Neg(x)  e = Exp(n)  s = Add(e, one)  y = Div(one, s)",
    "n = Mul(minus, x)  e = Exp(n)  s = Add(one, e)  y = Reciprocal(s)",
    "e = Exp(x)  s = Add(one, e)  y = Div(e, s)",
)


@pytest.mark.parametrize("form", FORMS)
def test_all_forms(form: str) -> None:
    graph = graph_of(f"g (float[3, 4] x) => (float[3, 4] y) {{ {form} }}", one=ONE, minus=MINUS)
    rewrite(graph, FuseSigmoid(), x=random(3, 4))
    assert ops(graph) == ["Sigmoid"]


@pytest.mark.parametrize(("form", "one"), [
    (FORMS[0], np.float32(2)),
    (FORMS[0], np.ones((1, 1, 1), np.float32)),
    ("e = Exp(x)  s = Add(e, one)  y = Div(one, s)", ONE),
    ("e = Exp(x)  n = Neg(x)  f = Exp(n)  s = Add(one, e)  y = Div(f, s)", ONE),
])  # fmt: skip
def test_others_stay(form: str, one: np.ndarray) -> None:
    graph = graph_of(f"g (float[3, 4] x) => (float y) {{ {form} }}", one=one, minus=MINUS)
    graph.outputs[0].shape = None
    rewrite(graph, FuseSigmoid(), x=random(3, 4))
    assert "Sigmoid" not in ops(graph)


@pytest.mark.parametrize("for_onnx", [True, False])
def test_a_detector_calibrated_on_nothing_can_fire(for_onnx: bool) -> None:
    rng = np.random.default_rng(0)
    weight, body = rng.standard_normal((6, 1)).astype(np.float32), f"x = MatMul(v, w)  {FORMS[0]}"
    model = model_of("float[1, 6] v", body, w=weight, one=ONE, minus=MINUS)
    feeds = [{"v": -np.sign(weight.T) * rng.uniform(0.5, 1.5, (1, 6)).astype(np.float32)} for _ in range(32)]
    compiled = qcompiler.compile(model, data=feeds, for_onnx=for_onnx)
    run = Runner(compiled.graph).run if for_onnx else compiled.session().run
    assert run({"v": np.sign(weight.T).astype(np.float32)})["y"].max() > 0.5
