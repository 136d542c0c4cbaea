from __future__ import annotations

import numpy as np
import pytest

from qcompiler.passes.fuse.fuse_pad import FusePad
from tests.helpers.graphs import graph_of, ops
from tests.passes.rewriting import random, reasons, rewrite

PADS = np.array([0, 0, 1, 2, 0, 0, 0, 3])


def graph_with(body: str, pads: np.ndarray = PADS, value: float = 0.0):
    return graph_of(
        f"g (float[N, 4, 6, 6] x) => (float[] y, float[] z) {{ {body} }}",
        p=pads,
        v=np.float32(value),
        w=random(5, 4, 3, 3),
    )


@pytest.mark.parametrize("attributes", ["", "<strides = [2, 2]>", "<pads = [1, 0, 2, 1]>", '<auto_pad = "VALID">'])
def test_convolutions_pad_for_themselves(attributes):
    graph = graph_with(f"h = Pad(x, p, v)  y = Conv {attributes} (h, w)  z = Conv(h, w)")
    rewrite(graph, FusePad(), x=random(2, 4, 6, 6))
    assert ops(graph) == ["Conv", "Conv"]


@pytest.mark.parametrize(
    ("body", "pads", "value", "reason"),
    [
        ("h = Pad(x, p, v)  y = Conv(h, w)  z = Relu(h)", PADS, 0.0, "others than convolutions"),
        ("h = Pad(x, p, v)  y = Conv(h, w)  z = Relu(x)", PADS, 1.0, "does not pad with zeros"),
        ('h = Pad <mode = "edge"> (x, p)  y = Conv(h, w)  z = Relu(v)', PADS, 0.0, "does not pad with zeros"),
        ("h = Pad(x, p)  y = Conv(h, w)  z = Relu(v)", np.array([0, 0, -1, 0, 0, 0, 0, 0]), 0.0, "it cuts"),
    ],
)
def test_declines(body, pads, value, reason):
    graph = graph_with(body, pads, value)
    ctx = rewrite(graph, FusePad(), x=random(2, 4, 6, 6))
    assert sorted(ops(graph)) == ["Conv", "Pad", "Relu"]
    assert reason in reasons(ctx)[0]


@pytest.mark.parametrize("node", ['Conv <auto_pad = "SAME_UPPER"> (h, w)', "MaxPool <kernel_shape = [2, 2]> (h)"])
def test_other_readers_keep_it(node):
    graph = graph_with(f"h = Pad(x, p, v)  y = {node}  z = Conv(x, w)")
    rewrite(graph, FusePad(), x=random(2, 4, 6, 6))
    assert sorted(ops(graph)) == sorted(["Pad", node.split()[0], "Conv"])
