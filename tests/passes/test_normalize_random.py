"""Random small networks: whatever the rewrites do together, outputs and the tensors that keep their names stay the
same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.pipeline import NORMALIZE
from tests.helpers.graphs import graph_of
from tests.passes.rewriting import random, rewrite

CHANNELS = 4
STEPS = {
    "padded": "{y} = Conv <pads = [1, 1, 1, 1]> ({x}, w)",
    "pointwise": "{y} = Conv ({x}, p, b)",
    "depthwise": "{y} = Conv <group = 4, pads = [1, 1, 1, 1]> ({x}, d)",
    "transposed": "{y} = ConvTranspose <pads = [1, 1, 1, 1]> ({x}, w)",
    "norm": "{y} = BatchNormalization ({x}, c, b, b, v)",
    "scalar": "{y} = Mul (k, {x})",
    "channels": "{y} = Mul ({x}, cc)",
    "over": "{y} = Div ({x}, k)",
    "offset": "{y} = Add ({x}, k)",
    "offsets": "{y} = Sub ({x}, bb)",
    "residual": "{y} = Add ({x}, {z})",
    "product": "{y} = Mul ({x}, {z})",
    "relu": "{y} = Relu ({x})",
    "swish": "{y}a = Add ({x}, three)  {y}c = Clip ({y}a, zero, six)  {y}m = Mul ({x}, {y}c)  {y} = Div ({y}m, six)",
    "gelu": "{y}d = Div ({x}, root)  {y}e = Erf ({y}d)  {y}a = Add ({y}e, one)  {y}m = Mul ({x}, {y}a)  {y} = Mul "
            "({y}m, half)",
    "identity": "{y} = Identity ({x})",
    "sum": "{y} = Sum ({x}, {z}, {x})",
    "turn": "{y} = Transpose <perm = [0, 1, 3, 2]> ({x})",
    "reshape": "{y}s = Shape ({x})  {y} = Reshape ({x}, {y}s)",
}  # fmt: skip
CONSTANTS = {
    "w": random(CHANNELS, CHANNELS, 3, 3, low=-0.3, high=0.3),
    "p": random(CHANNELS, CHANNELS, 1, 1, low=-0.6, high=0.6),
    "d": random(CHANNELS, 1, 3, 3, low=-0.5, high=0.5), "b": random(CHANNELS, seed=1, low=-1, high=1),
    "c": random(CHANNELS, seed=2, low=0.5, high=1.5),
    "v": random(CHANNELS, seed=3, low=0.5, high=1.5), "cc": random(CHANNELS, 1, 1, seed=4, low=-1.5, high=1.5),
    "bb": random(1, CHANNELS, 1, 1, seed=5, low=-1, high=1), "k": np.float32(0.7), "zero": np.float32(0),
    "one": np.float32(1),
    "half": np.float32(0.5), "three": np.float32(3), "six": np.float32(6), "root": np.float32(np.sqrt(2)),
}  # fmt: skip


@st.composite
def networks(draw: st.DrawFn) -> tuple[str, list[str]]:
    """The body of a graph over x, and the names of its outputs."""
    lines, tensors = [], ["x"]
    for index, step in enumerate(draw(st.lists(st.sampled_from(sorted(STEPS)), min_size=2, max_size=9))):
        source = tensors[-1] if draw(st.integers(0, 3)) else draw(st.sampled_from(tensors))
        lines.append(STEPS[step].format(x=source, z=draw(st.sampled_from(tensors)), y=f"t{index}"))
        tensors.append(f"t{index}")
    extra = draw(st.sets(st.sampled_from(tensors[1:]), max_size=2))
    return "  ".join(lines), sorted({tensors[-1], *extra})


@settings(max_examples=60, deadline=None)
@given(networks())
def test_any_network_computes_the_same(network: tuple[str, list[str]]) -> None:
    body, outputs = network
    used: dict[str, Any] = {
        name: value
        for name, value in CONSTANTS.items()
        if f" {name})" in body or f" {name}," in body or f"({name}," in body
    }
    graph = graph_of(
        f"g (float[N, 4, 6, 6] x) => ({', '.join(f'float[] {name}' for name in outputs)}) {{ {body} }}", **used
    )
    rewrite(graph, *NORMALIZE, tolerance=2e-4, x=random(2, CHANNELS, 6, 6, low=-2, high=2))
