from __future__ import annotations

import numpy as np
import pytest

from qcompiler.passes.fuse.fuse_softmax import FuseSoftmax
from tests.helpers.graphs import graph_of, ops
from tests.passes.rewriting import random, reasons, rewrite


@pytest.mark.parametrize(("dims", "axis", "result"), [("N, L, 7", 2, 2), ("N, 7, 1, 1", 1, 1), ("N, 2, 7", -1, 2)])
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_undoes_flattening(op, dims, axis, result):
    body = f"s = Shape(x)  f = Flatten <axis = {axis}> (x)  h = {op} <axis = -1> (f)  y = Reshape(h, s)"
    graph = graph_of(f"g (float[{dims}] x) => (float[] y) {{ {body} }}")
    rewrite(graph, FuseSoftmax(), x=random(*(size if isinstance(size, int) else 2 for size in graph.inputs[0].shape)))
    assert ops(graph) == [op]
    assert graph.nodes[0].attrs["axis"] == result


def test_declines_several_axes():
    graph = graph_of(
        "g (float[N, 3, 7] x) => (float[] y) { f = Flatten <axis = 1> (x)  h = Softmax(f)  y = Reshape(h, s) }",
        s=np.array([0, 3, 7]),
    )
    ctx = rewrite(graph, FuseSoftmax(), x=random(2, 3, 7))
    assert ops(graph) == ["Flatten", "Softmax", "Reshape"]
    assert "several axes" in reasons(ctx)[0]


def test_another_shape_stays():
    graph = graph_of(
        "g (float[N, 3, 7] x) => (float[] y) { f = Flatten <axis = 2> (x)  h = Softmax(f)  y = Reshape(h, s) }",
        s=np.array([-1, 7, 3]),
    )
    rewrite(graph, FuseSoftmax(), x=random(2, 3, 7))
    assert ops(graph) == ["Flatten", "Softmax", "Reshape"]
