"""What a run says of shapes that the model declares otherwise."""

from __future__ import annotations

import numpy as np
import pytest

from qcompiler.api import Options, compile
from qcompiler.graph.runner import Runner
from qcompiler.onnx_io.export import to_model
from qcompiler.runtime import Session
from qcompiler.shapes.seen_types import drop_wrong_shapes, separate_sizes
from tests.helpers.graphs import graph_of


@pytest.mark.parametrize(
    ("declared", "kept"),
    [
        ("N, 1, 4", ["N", 1, 4]),
        ("M, 1, K", ["M", 1, "K"]),  # symbols of their own
        ("N", [None, None, None]),
        ("N, N, 4", ["N", None, 4]),
        ("N, 7, 4", ["N", None, 4]),
    ],
)
def test_declared_sizes_that_a_run_contradicts_are_forgotten(declared: str, kept: list[object]) -> None:
    graph = graph_of(f"g (float[N, 1, 4] x) => (float[{declared}] y) {{ y = Relu(x) }}")
    graph.outputs[0].shape = [int(size) if size.isdigit() else size for size in declared.split(", ")]
    feed = {"x": np.ones((2, 1, 4), np.float32)}
    answers = {"y": feed["x"]}
    wrong = drop_wrong_shapes(graph, feed, answers)
    assert graph.outputs[0].shape == kept
    assert wrong == ([] if None not in kept else ["y"])
    np.testing.assert_array_equal(Runner(graph).run(feed)["y"], answers["y"])


LYING = """g (float[B, C, H, W] x, float[B, C, H, W] s) => (float[B, 3, H, W] y, float[B, 4, H, W] t) {
    a = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (x)  b = Concat <axis = 1> (a, s)  c = Conv(b, w)
    t = Tanh(c)  u = Conv(t, v)  h = Relu(u)  z = Shape <start = 2> (x)  f = Concat <axis = 0> (nil, z)
    y = Resize <mode = "nearest"> (h, , , f) }"""
"""As a network that is fed its own states: every input and output names its sizes alike, whatever they are."""


def test_names_that_stand_for_several_sizes_are_not_trusted() -> None:
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((4, 7, 1, 1)) * 0.3, "v": rng.standard_normal((3, 4, 1, 1)) * 0.3}
    constants = {name: value.astype(np.float32) for name, value in weights.items()}
    model = to_model(graph_of(LYING, nil=np.array([1, 3]), **constants))
    feeds = [
        {"x": rng.standard_normal((1, 3, 8, 2 * wide)), "s": rng.standard_normal((1, 4, 4, wide))}
        for wide in (4, 5, 4, 6, 4, 5, 4, 4)
    ]
    feeds = [{name: value.astype(np.float32) for name, value in feed.items()} for feed in feeds]
    reference = Runner(model)
    for for_onnx in (True, False):
        result = compile(model, data=feeds[:5], options=Options(0), for_onnx=for_onnx)
        assert sum("is several sizes in one feed" in text for text in result.report.warnings) == 3  # C, H and W
        run = Runner(to_model(result.graph)).run if for_onnx else Session(result.program).run
        for feed in feeds[5:]:
            for name, expected in reference.run(feed).items():
                got = run(feed)[name]
                assert 10 * np.log10(np.square(expected).sum() / np.square(expected - got).sum()) > 25


def test_names_that_are_right_are_kept() -> None:
    graph = graph_of("g (float[N, M] x, float[N, K] z) => (float[N, L] y) { y = Concat <axis = 1> (x, z) }")
    feed = {"x": np.ones((2, 3), np.float32), "z": np.ones((2, 4), np.float32)}
    assert separate_sizes(graph, [feed]) == []
    assert [list(tensor.shape) for tensor in graph.inputs] == [["N", "M"], ["N", "K"]]
