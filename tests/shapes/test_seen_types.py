"""What a run says of shapes that the model declares otherwise."""

from __future__ import annotations

import numpy as np
import pytest

from qcompiler.graph.runner import Runner
from qcompiler.shapes.seen_types import drop_wrong_shapes
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
