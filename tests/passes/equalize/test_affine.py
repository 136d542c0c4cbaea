"""affine: a fitted matrix between layers; invertible, folded into both sides, and better than none on fresh feeds."""

from __future__ import annotations

import numpy as np
import pytest

from qcompiler.graph.runner import Runner
from qcompiler.manager import Manager
from qcompiler.pass_base import Context
from qcompiler.passes.equalize.affine import Affine
from tests.passes.equalize.test_rotate import feeds, network, rounding_error


@pytest.mark.parametrize("channels", [12, 16])
def test_the_matrix_folds_and_the_outputs_err_less(channels: int) -> None:
    graph = network(channels, 40)
    before, error = Runner(graph).run(feeds()[0])["y"], rounding_error(graph)
    old = [node.inputs[1].values.astype(np.float64) for node in graph.nodes]
    ctx = Context(data=feeds())
    Manager([Affine()], feed=feeds()[0]).run(graph, ctx)
    (change,) = ctx.report.regions
    assert change.noise_after < 0.9 * change.noise_before  # type: ignore[operator]
    assert 1 <= change.condition < 1e6  # type: ignore[operator]
    np.testing.assert_allclose(Runner(graph).run(feeds()[0])["y"], before, rtol=1e-3, atol=1e-3)
    new = [node.inputs[1].values.astype(np.float64) for node in graph.nodes]
    np.testing.assert_allclose(new[0] @ new[1], old[0] @ old[1], rtol=1e-3, atol=1e-3 * np.abs(old[0] @ old[1]).max())
    assert not np.allclose(new[0], old[0])
    assert rounding_error(graph) < 0.9 * error


def test_a_gain_that_no_matrix_has_leaves_the_graph_alone() -> None:
    graph, ctx = network(12, 40), Context(data=feeds())
    before = graph.nodes[0].inputs[1].values.copy()
    assert not Affine(gain=1.0, epochs=2, steps=2).run(graph, ctx)
    np.testing.assert_array_equal(graph.nodes[0].inputs[1].values, before)


@pytest.mark.parametrize("options", [{"widest": 2.0}, {"epochs": 0}, {"bits": 1}])
def test_odd_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must lie between"):
        Affine(**options)  # type: ignore[arg-type]
