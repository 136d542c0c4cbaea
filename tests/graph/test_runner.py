"""What onnxruntime's optimizer breaks runs as it is written."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

from qcompiler.errors import ModelError
from qcompiler.graph.runner import Runner
from tests.helpers.graphs import graph_of
from tests.passes.rewriting import random

TEXT = "g (float[N, L] x) => (float[N, 3] y) { h = MatMul(x, w)  y = Relu(h) }"


def broken(*_arguments: object) -> None:
    raise Fail("Input channels C is not equal to kernel channels * group")


def test_a_model_that_only_its_optimized_form_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen with onnxruntime 1.32 where values between Q/DQ nodes around a Transpose are asked for."""
    graph, feed = graph_of(TEXT, w=random(7, 3)), {"x": np.ones((2, 7), np.float32)}
    expected, runner = Runner(graph).run(feed, ["y"]), Runner(graph, ["h", "y"])
    monkeypatch.setattr(runner, "_session", SimpleNamespace(run=broken))
    for _ in range(2):
        np.testing.assert_allclose(runner.run(feed)["y"], expected["y"], atol=1e-6)


def test_what_runs_in_no_form_is_one_line_and_leaves_the_rest_as_it_was() -> None:
    runner = Runner(graph_of(TEXT, w=random(7, 3)))
    for _ in range(2):
        with pytest.raises(ModelError, match="onnxruntime cannot run the model"):
            runner.run({"x": np.zeros((1, 5), np.float32)})
    assert runner.run({"x": np.zeros((1, 7), np.float32)})["y"].shape == (1, 3)
