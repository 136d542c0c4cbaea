from __future__ import annotations

import numpy as np
import pytest

from qcompiler.graph.ir import copy_of
from qcompiler.graph.runner import Runner
from qcompiler.replacement.chains import find_chains, parts, rows_of
from qcompiler.replacement.features import InputScale, draw_map
from qcompiler.replacement.rewrite import write_bundle
from tests.helpers.graphs import graph_of, ops

RNG = np.random.default_rng(0)
W1, B1, W2, B2 = (RNG.standard_normal(shape).astype(np.float32) for shape in ((6, 10), (10,), (10, 4), (4,)))

FUNCTIONS = {
    "Relu": "a = Relu(h)",
    "Gelu": "a = Gelu(h)",
    "Tanh": "a = Tanh(h)",
    "HardSwish": "a = HardSwish(h)",
    "SiLU": "s = Sigmoid(h) a = Mul(h, s)",
    "scaled": "s = Mul(h, two) a = Tanh(s)",
    "none": "a = Identity(h)",
}


def gemm(function="Relu"):
    body = f"h = Gemm(x, w1, b1) {FUNCTIONS[function]} y = Gemm(a, w2, b2)"
    return graph_of(f"g (float[N, 6] x) => (float[N, 4] y) {{ {body} }}", w1=W1, b1=B1, w2=W2, b2=B2, two=np.float32(2))


def matmul(function="Relu"):
    body = f"m = MatMul(x, w1) h = Add(m, b1) {FUNCTIONS[function]} n = MatMul(a, w2) y = Add(b2, n)"
    return graph_of(
        f"g (float[N, T, 6] x) => (float[N, T, 4] y) {{ {body} }}", w1=W1, b1=B1, w2=W2, b2=B2, two=np.float32(2)
    )


def conv(function="Relu"):
    body = f"h = Conv(x, w1, b1) {FUNCTIONS[function]} y = Conv(a, w2, b2)"
    weights = {"w1": W1.T.reshape(10, 6, 1, 1), "w2": W2.T.reshape(4, 10, 1, 1)}
    return graph_of(
        f"g (float[N, 6, H, W] x) => (float[N, 4, H, W] y) {{ {body} }}", **weights, b1=B1, b2=B2, two=np.float32(2)
    )


FORMS = {"Gemm": (gemm, (5, 6)), "MatMul": (matmul, (2, 3, 6)), "Conv": (conv, (2, 6, 3, 2))}


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_and_function_is_found_and_can_be_rewritten_with_all_its_neurons(form, function):
    """G = W1, c = b1, the same function: the graph computes what it did, and layers keep their names."""
    build, shape = FORMS[form]
    graph = build(function)
    (chain,) = find_chains(graph)
    assert (chain.widths, chain.inputs.name, chain.outputs.name) == ((6, 10, 4), "x", "y")
    assert chain.cost.macs == 100
    names = [layer.node.name for layer in chain.layers]
    before = copy_of(graph)
    write_bundle(graph, chain, np.arange(10), W2.T.astype(np.float64), None, B2.astype(np.float64))
    graph.cleanup().toposort()
    assert ops(graph) == ops(before)
    feed = {"x": RNG.standard_normal(shape).astype(np.float32)}
    np.testing.assert_allclose(Runner(graph).run(feed)["y"], Runner(before).run(feed)["y"], rtol=1e-5, atol=1e-5)
    assert [layer.node.name for layer in find_chains(graph)[0].layers] == names


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["relu", "cos", "product", "affine", "neurons"])
def test_a_bundle_in_the_graph_computes_its_formula(form, kind):
    build, shape = FORMS[form]
    graph = build()
    (chain,) = find_chains(graph)
    x = RNG.standard_normal(shape).astype(np.float32)
    rows = rows_of(chain.layers[0], x).astype(np.float64)
    count = 0 if kind == "affine" else 5
    neurons = np.array([0, 3, 4, 7, 9])
    features = (
        neurons[:count]
        if kind in ("affine", "neurons")
        else draw_map(kind, count, InputScale.of(rows), np.random.default_rng(1))
    )
    weight, skip, bias = RNG.standard_normal((4, count)), RNG.standard_normal((4, 6)), RNG.standard_normal(4)
    values = np.maximum(rows @ W1 + B1, 0)[:, neurons[:count]] if kind in ("affine", "neurons") else features(rows)
    write_bundle(graph, chain, features, weight, skip, bias)
    graph.cleanup().toposort()
    outputs = rows_of(chain.layers[0], Runner(graph).run({"x": x})["y"])
    np.testing.assert_allclose(outputs, values @ weight.T + rows @ skip.T + bias, rtol=1e-4, atol=1e-4)


def test_a_long_chain_is_one_region_and_its_pairs():
    body = "h = Gemm(x, w1, b1) a = Relu(h) k = Gemm(a, w2, b2) b = Tanh(k) y = Gemm(b, w3)"
    graph = graph_of(
        f"g (float[N, 6] x) => (float[N, 5] y) {{ {body} }}", w1=W1, b1=B1, w2=W2, b2=B2, w3=np.ones((4, 5), np.float32)
    )
    (chain,) = find_chains(graph)
    assert chain.widths == (6, 10, 4, 5)
    assert [len(part.layers) for part in parts(chain)] == [3, 2, 2]
    assert chain.cost.macs == 60 + 40 + 20


@pytest.mark.parametrize(
    "body",
    [
        "h = Gemm(x, w1, b1) a = Relu(h) y = Gemm(a, w2, b2) z = Identity(a)",  # the neurons are read elsewhere
        "h = Gemm(x, w1, b1) a = Relu(h) y = Gemm(a, w2, b2) z = Relu(h)",
        "h = Gemm(x, w1, b1) a = Softmax(h) y = Gemm(a, w2, b2) z = Relu(x)",  # not a function of one element
        "h = Gemm(x, w1, b1) a = Mul(h, other) y = Gemm(a, w2, b2) z = Relu(x)",  # channel by channel
        # gated by another layer
        "h = Gemm(x, w1, b1) g = Gemm(x, w1, b1) s = Sigmoid(g) a = Mul(h, s) y = Gemm(a, w2, b2) z = Relu(x)",
    ],
)
def test_what_is_no_region(body):
    graph = graph_of(
        f"g (float[N, 6] x) => (float[N, 4] y, float[N, M] z) {{ {body} }}",
        w1=W1,
        b1=B1,
        w2=W2,
        b2=B2,
        other=np.ones(10, np.float32),
    )
    assert find_chains(graph) == []


@pytest.mark.parametrize("attributes", ["<strides = [2, 2]>", "<pads = [1, 1, 1, 1]>", "<group = 2>"])
def test_a_convolution_that_moves_positions_or_has_groups_is_no_dense_layer(attributes):
    groups = 2 if "group" in attributes else 1
    weights = {
        "w1": RNG.standard_normal((10, 6, 1, 1)).astype(np.float32),
        "w2": RNG.standard_normal((4, 10 // groups, 1, 1)).astype(np.float32),
    }
    text = (
        f"g (float[N, 6, H, W] x) => (float[N, 4, I, J] y) {{ h = Conv(x, w1) a = Relu(h) y = Conv {attributes} (a, "
        f"w2) }}"
    )
    assert find_chains(graph_of(text, **weights)) == []
