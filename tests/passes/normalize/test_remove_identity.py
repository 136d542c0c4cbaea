from __future__ import annotations

import numpy as np
import pytest

from qcompiler.passes.normalize.remove_identity import RemoveIdentity
from tests.helpers.graphs import graph_of, ops
from tests.passes.rewriting import random, reasons, rewrite

NOTHING = {
    "Identity(h)": {},
    "Dropout(h)": {},
    "Dropout(h, ratio, off)": {"ratio": np.float32(0.5), "off": np.bool_(False)},
    "Cast <to = 1> (h)": {},
    "Reshape(h, s)": {"s": np.array([0, -1])},
    "Transpose <perm = [0, 1]> (h)": {},
    "Pad(h, p)": {"p": np.zeros(4, np.int64)},
    "Concat <axis = 1> (h)": {},
    "Sum(h)": {},
    "Max(h)": {},
    "Slice(h, a, b)": {"a": np.array([0]), "b": np.array([2**31 - 1])},
    "Expand(h, e)": {"e": np.array([1, 4])},
    "Tile(h, reps)": {"reps": np.array([1, 1])},
    "Squeeze(h, n)": {"n": np.zeros(0, np.int64)},
    "Flatten(h)": {},
    "Add(h, z)": {"z": np.zeros((1, 4), np.float32)},
    "Add(z, h)": {"z": np.float32(0)},
    "Mul(one, h)": {"one": np.ones(1, np.float32)},
    "Div(h, one)": {"one": np.float32(1)},
    "Pow(h, one)": {"one": np.float32(1)},
}

SOMETHING = {
    "Cast <to = 11> (h)": {},
    "Reshape(h, s)": {"s": np.array([4, -1])},
    "Transpose <perm = [1, 0]> (h)": {},
    "Pad(h, p)": {"p": np.array([0, 1, 0, -1])},
    "Slice(h, a, b, ax, r)": {"a": np.array([3]), "b": np.array([-10]), "ax": np.array([1]), "r": np.array([-1])},
    "Add(h, z)": {"z": np.zeros((3, 1, 4), np.float32)},
    "Sub(z, h)": {"z": np.float32(0)},
    "Div(one, h)": {"one": np.float32(1)},
    "Mul(h, c)": {"c": np.array([1, 1, 1, 2], np.float32)},
}


def graph_with(node: str, constants: dict[str, np.ndarray], kind: str = "float"):
    return graph_of(f"g (float[N, 4] x) => ({kind}[] y) {{ h = Relu(x)  t = {node}  y = Neg(t) }}", **constants)


@pytest.mark.parametrize("node", NOTHING)
def test_removes_what_computes_nothing(node):
    graph = graph_with(node, NOTHING[node])
    rewrite(graph, RemoveIdentity(), x=random(3, 4, low=0.5))
    assert ops(graph) == ["Relu", "Neg"]


@pytest.mark.parametrize("node", SOMETHING)
def test_keeps_what_computes_something(node):
    graph = graph_with(node, SOMETHING[node], "double" if "Cast" in node else "float")
    rewrite(graph, RemoveIdentity(), x=random(3, 4, low=0.5))
    assert len(ops(graph)) == 3


def test_output_of_the_graph_keeps_its_name():
    graph = graph_of("g (float[N, 4] x) => (float[N, 4] y, float[N, 4] z) { h = Relu(x)  y = Identity(h)  z = Neg(h) }")
    rewrite(graph, RemoveIdentity(), x=random(2, 4))
    assert ops(graph) == ["Relu", "Neg"]


def test_declines_when_an_output_would_become_an_input():
    graph = graph_of("g (float[N, 4] x) => (float[N, 4] y) { y = Identity(x) }")
    ctx = rewrite(graph, RemoveIdentity(), x=random(2, 4))
    assert ops(graph) == ["Identity"]
    assert "the graph returns its input unchanged" in reasons(ctx)[0]


def test_keeps_a_dropout_whose_mask_is_read():
    graph = graph_of("g (float[N, 4] x) => (float[N, 4] y, bool[N, 4] m) { h = Relu(x)  y, m = Dropout(h) }")
    rewrite(graph, RemoveIdentity(), x=random(2, 4))
    assert ops(graph) == ["Relu", "Dropout"]
