from __future__ import annotations

import numpy as np
import pytest

from qcompiler.passes.normalize.fold_scale_forward import FoldScaleForward
from tests.helpers.graphs import graph_of, ops
from tests.passes.rewriting import random, rewrite

IMAGE = "float[N, 4, 6, 6] x"
LAYERS = {
    "conv": (IMAGE, "y = Conv <group = 2> (h, w, b)", random(6, 2, 3, 3), random(4, 1, 1, low=0.5)),
    "transposed": (IMAGE, "y = ConvTranspose <group = 2> (h, w)", random(4, 3, 3, 3), random(1, 4, 1, 1, low=0.5)),
    "gemm": (
        "float[N, 4] x",
        "y = Gemm <transB = 1, alpha = 0.5, beta = 2.0> (h, w, b)",
        random(6, 4),
        random(4, low=0.5),
    ),
    "matmul": ("float[N, 3, 4] x", "y = MatMul(h, w)", random(4, 6), random(1, 4, low=0.5)),
}


def graph_with(case: str, before: str, c: np.ndarray, **more: np.ndarray):
    declared, layer, w, _ = LAYERS[case]
    return graph_of(f"g ({declared}) => (float[] y) {{ {before}  {layer} }}", w=w, b=random(6, seed=7), c=c, **more)


def feed_of(case: str) -> np.ndarray:
    return {"gemm": random(3, 4), "matmul": random(2, 3, 4)}.get(case, random(2, 4, 6, 6))


@pytest.mark.parametrize("case", LAYERS)
@pytest.mark.parametrize("before", ["h = Mul(x, c)", "h = Mul(c, x)", "h = Div(x, c)"])
@pytest.mark.parametrize("scalar", [False, True])
def test_factors(case, before, scalar):
    graph = graph_with(case, before, np.float32(-1.7) if scalar else LAYERS[case][3])
    rewrite(graph, FoldScaleForward(), x=feed_of(case))
    assert len(ops(graph)) == 1


@pytest.mark.parametrize("case", ["conv", "gemm"])
@pytest.mark.parametrize("before", ["h = Add(x, c)", "h = Add(c, x)", "h = Sub(x, c)"])
def test_offsets(case, before):
    graph = graph_with(case, before, LAYERS[case][3])
    rewrite(graph, FoldScaleForward(), x=feed_of(case))
    assert len(ops(graph)) == 1


def test_offset_before_padding_stays_and_the_factor_goes_around_it():
    for factor, offset in [
        (np.float32(0.7), np.float32(0.3)),
        (random(4, 1, 1, low=0.5), np.float32(0.3)),
        (np.float32(-2), random(1, 4, 1, 1)),
    ]:
        graph = graph_of(
            f"g ({IMAGE}) => (float[] y, float[] z) {{ p = Mul(x, a)  h = Add(p, c)  y = Conv <pads = [1, 1, 1, 1]> "
            f"(h, w)  z = Conv(h, w) }}",
            w=random(6, 4, 3, 3), a=factor, c=offset,
        )  # fmt: skip
        rewrite(graph, FoldScaleForward(), x=random(2, 4, 6, 6))
        assert ops(graph) == ["Add", "Conv", "Conv"]


def test_normalisation_of_an_image():
    graph = graph_of(
        "g (float[N, 3, 6, 6] x) => (float[] y) { a = Div(x, k)  m = Sub(a, mean)  h = Div(m, std)  y = Conv(h, w) }",
        k=np.float32(255), mean=random(3, 1, 1), std=random(3, 1, 1, low=0.2, high=0.3), w=random(6, 3, 3, 3),
    )  # fmt: skip
    rewrite(graph, FoldScaleForward(), x=random(2, 3, 6, 6, low=0, high=255))
    assert ops(graph) == ["Conv"]


@pytest.mark.parametrize(
    "text",
    [
        "h = Mul(x, c)  y = Conv(h, w)  z = Relu(h)",
        "h = Mul(x, c)  y = Conv(h, h2)  z = Relu(x)",
        "h = Div(c, x)  y = Conv(h, w)  z = Relu(x)",
        "h = Sub(c, x)  y = Conv(h, w)  z = Relu(x)",
        "h = Mul(x, spatial)  y = Conv(h, w)  z = Relu(x)",
        "h = Add(x, c)  y = ConvTranspose(h, wt)  z = Relu(x)",
    ],
)
def test_leaves_what_it_must_not_fold(text):
    constants = {"c": np.float32(1.5), "w": random(6, 4, 3, 3), "wt": random(4, 6, 3, 3), "spatial": random(6, 1)}
    used = {
        name: value
        for name, value in constants.items()
        if f"{name})" in text or f" {name}," in text or f"({name}," in text
    }
    graph = graph_of(f"g ({IMAGE}, float[6, 4, 3, 3] h2) => (float[] y, float[] z) {{ {text} }}", **used)
    rewrite(graph, FoldScaleForward(), x=random(2, 4, 6, 6, low=0.5), h2=random(6, 4, 3, 3))
    assert sorted(ops(graph)) == sorted([text.split()[2].split("(")[0], text.split("y = ")[1].split("(")[0], "Relu"])
