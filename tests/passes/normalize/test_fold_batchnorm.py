from __future__ import annotations

import numpy as np
import pytest

from qcompiler.passes.normalize.fold_batchnorm import FoldBatchNorm
from tests.helpers.graphs import graph_of, ops
from tests.passes.rewriting import random, reasons, rewrite


def statistics(channels: int) -> dict[str, np.ndarray]:
    return {
        "gamma": random(channels, seed=1), "beta": random(channels, seed=2), "mean": random(channels, seed=3),
        "var": random(channels, seed=4, low=0.1, high=2.0),
    }  # fmt: skip


IMAGE = "float[N, 4, 5, 5] x"
NORM = "y = BatchNormalization <epsilon = 0.001> (h, gamma, beta, mean, var)"
LAYERS = {
    "conv": (IMAGE, "h = Conv <pads = [1, 1, 1, 1]> (x, w)", {"w": random(6, 4, 3, 3)}, random(2, 4, 5, 5)),
    "conv with bias": (IMAGE, ("h = Conv <group = 2> (x, w, "
                              "b)"), {"w": random(6, 2, 3, 3), "b": random(6, seed=9)}, random(2, 4, 5, 5)),
    "conv 1d": ("float[N, 4, 9] x", "h = Conv (x, w)", {"w": random(6, 4, 3)}, random(2, 4, 9)),
    "transposed": (IMAGE, ("h = ConvTranspose <strides = [2, 2]> (x, w, "
                          "b)"), {"w": random(4, 6, 3, 3), "b": random(6, seed=9)}, random(2, 4, 5, 5)),
    "transposed in groups": (IMAGE, ("h = ConvTranspose <group = 2> (x, "
                                    "w)"), {"w": random(4, 3, 3, 3)}, random(2, 4, 5, 5)),
    "gemm": ("float[N, 4] x", ("h = Gemm <alpha = 0.5, beta = 2.0> (x, w, "
                              "b)"), {"w": random(4, 6), "b": random(1, 6, seed=9)}, random(3, 4)),
    "gemm transposed": ("float[N, 4] x", "h = Gemm <transB = 1> (x, w)", {"w": random(6, 4)}, random(3, 4)),
    "gemm with one number": ("float[N, 4] x", "h = Gemm (x, w, b)", {"w": random(4, 6), "b": np.float32(0.3)},
    random(3, 4)),
}  # fmt: skip


@pytest.mark.parametrize("kind", LAYERS)
def test_folds_into_the_layer(kind):
    declared, layer, constants, x = LAYERS[kind]
    graph = graph_of(f"g ({declared}) => (float[] y) {{ {layer}  {NORM} }}", **constants, **statistics(6))
    ctx = rewrite(graph, FoldBatchNorm(), x=x)
    assert ops(graph) == [layer.split()[2]]
    np.testing.assert_allclose(ctx.batchnorm["y"].mean, random(6, seed=2))
    np.testing.assert_allclose(ctx.batchnorm["y"].variance, random(6, seed=1) ** 2, rtol=1e-6)


def test_statistics_describe_the_output_on_data_like_the_training_data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 3, 4, 4)).astype(np.float32)
    w = rng.normal(size=(5, 3, 1, 1)).astype(np.float32)
    h = np.einsum("nchw,oc->nohw", x, w[:, :, 0, 0])
    known = {**statistics(5), "mean": h.mean((0, 2, 3)), "var": h.var((0, 2, 3))}
    graph = graph_of(f"g (float[N, 3, 4, 4] x) => (float[] y) {{ h = Conv(x, w)  {NORM} }}", w=w, **known)
    ctx = rewrite(graph, FoldBatchNorm(), x=x[:4])
    gamma, beta, mean, var = (known[name].reshape(-1, 1, 1) for name in ("gamma", "beta", "mean", "var"))
    y = gamma * (h - mean) / np.sqrt(var) + beta
    np.testing.assert_allclose(ctx.batchnorm["y"].mean, y.mean((0, 2, 3)), atol=1e-4)
    np.testing.assert_allclose(ctx.batchnorm["y"].variance, y.var((0, 2, 3)), rtol=1e-4)


def test_matmul_takes_a_bias_behind_it():
    graph = graph_of(
        f"g (float[N, 4] x) => (float[] y) {{ h = MatMul(x, w)  {NORM} }}", w=random(4, 6), **statistics(6)
    )
    rewrite(graph, FoldBatchNorm(), x=random(3, 4))
    assert ops(graph) == ["MatMul", "Add"]


@pytest.mark.parametrize(
    ("shape", "expected"), [((2, 6, 4, 4), ["Conv"]), ((2, 6, 7), ["Conv"]), ((5, 6), ["Mul", "Add"])]
)
def test_alone(shape, expected):
    dims = ", ".join(["N", *map(str, shape[1:])])
    graph = graph_of(f"g (float[{dims}] h) => (float[] y) {{ {NORM} }}", **statistics(6))
    rewrite(graph, FoldBatchNorm(), h=random(*shape))
    assert ops(graph) == expected


def test_stands_alone_when_the_layer_is_read_by_others():
    graph = graph_of(
        f"g ({IMAGE}) => (float[] y, float[] z) {{ h = Conv(x, w)  {NORM}  z = Relu(h) }}",
        w=random(6, 4, 3, 3),
        **statistics(6),
    )
    rewrite(graph, FoldBatchNorm(), x=random(2, 4, 5, 5))
    assert sorted(ops(graph)) == ["Conv", "Conv", "Relu"]


def test_weights_of_two_layers_are_told_apart():
    graph = graph_of(
        f"g ({IMAGE}) => (float[] y, float[] z) {{ h = Conv(x, w)  {NORM}  z = Conv(x, w) }}",
        w=random(6, 4, 3, 3),
        **statistics(6),
    )
    rewrite(graph, FoldBatchNorm(), x=random(2, 4, 5, 5))
    assert ops(graph) == ["Conv", "Conv"]


def test_declines_training_and_computed_parameters():
    graph = graph_of(
        """g (float[N, 4, 5, 5] x, float[4] g) => (float[] y, float[] z, float[4] m, float[4] v) {
            y = BatchNormalization(x, g, beta, mean, var)
            z, m, v = BatchNormalization <training_mode = 1> (x, gamma, beta, mean, var) }""",
        **statistics(4),
    )
    ctx = rewrite(graph, FoldBatchNorm(), x=random(2, 4, 5, 5), g=random(4))
    assert ops(graph) == ["BatchNormalization"] * 2
    assert reasons(ctx) == ["its parameters are computed", "it is in training mode"]
