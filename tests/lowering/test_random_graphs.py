"""Random small graphs: machine, onnxruntime and integer ONNX agree on every layer."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.graphs import graph_of
from tests.lowering.checked import check, quantize

FEW = settings(max_examples=12, deadline=None)

IMAGE_STEPS = [
    "{y} = Relu({x})",
    "{y} = Sigmoid({x})",
    "{y} = HardSwish({x})",
    ("_{y} = Conv<pads=[1,1,1,1]>({x}, w_0) {y} = Relu(_{y})"),
    "{y} = Conv<group=4>({x}, w2_0, b)",
    "{y} = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>({x})",
    "{y} = AveragePool<kernel_shape=[2,2], pads=[0,0,1,1]>({x})",
    "{y} = Add({x}, x)",
    "{y} = Mul({x}, x)",
    "{y} = Sub(x, {x})",
    "_{y} = Transpose<perm=[0,1,3,2]>({x}) {y} = Neg(_{y})",
    "_{y} = GlobalAveragePool({x}) {y} = Add({x}, _{y})",
    "_{y}, _{y}b = Split<axis=1, num_outputs=2>({x}) {y} = Concat<axis=1>(_{y}b, _{y})",
    "{y} = Max({x}, x)",
]
SEQUENCE_STEPS = [
    "_{y} = MatMul({x}, w_1) {y} = Add(_{y}, b)",
    "{y} = Softmax({x})",
    "{y} = LayerNormalization({x}, gamma, beta)",
    "{y} = Add({x}, x)",
    "_{y} = Transpose<perm=[0,2,1]>({x}) {y}s = MatMul({x}, _{y}) {y} = MatMul({y}s, x)",
    "{y} = Gelu({x})",
    "{y} = Tanh({x})",
    "{y}a = ReduceMean(x, last) {y} = Sub({x}, {y}a)",
]


def body(steps: list[str]) -> str:
    lines, last = [], "x"
    for index, step in enumerate(steps):
        name = "y" if index == len(steps) - 1 else f"t{index}"
        lines.append(step.format(x=last, y=name))
        last = name
    return " ".join(lines)


@FEW
@given(
    st.lists(st.sampled_from(IMAGE_STEPS), min_size=1, max_size=5),
    st.sampled_from([np.uint8, np.int16]),
    st.integers(0, 1000),
)
def test_images(steps: list[str], dtype: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = {"w_0": rng.normal(size=(4, 4, 3, 3)), "w2_0": rng.normal(size=(4, 1, 1, 1)), "b": rng.normal(size=4)}
    feed = {"x": rng.normal(size=(2, 4, 6, 6)).astype(np.float32)}
    graph = graph_of(
        f"g (float[2,4,6,6] x) => (float[] y) {{ {body(steps)} }}",
        **{k: v.astype(np.float32) for k, v in values.items()},
    )
    check(quantize(graph, feed, dtype), feed, within=0.99)


@FEW
@given(
    st.lists(st.sampled_from(SEQUENCE_STEPS), min_size=1, max_size=5),
    st.sampled_from([np.uint8, np.int16]),
    st.integers(0, 1000),
)
def test_sequences(steps: list[str], dtype: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = {
        "w_1": rng.normal(size=(8, 8)),
        "b": rng.normal(size=8),
        "gamma": rng.normal(size=8),
        "beta": rng.normal(size=8),
    }
    feed = {"x": rng.normal(size=(2, 5, 8)).astype(np.float32)}
    text = f"g (float[2,5,8] x) => (float[] y) {{ last = Constant<value_ints=[-1]>() {body(steps)} }}"
    graph = graph_of(text, **{k: v.astype(np.float32) for k, v in values.items()})
    check(quantize(graph, feed, dtype), feed, within=0.99)
