"""nupes: the exponent of a layer's power grid, compared with a search through all of them."""

from __future__ import annotations

import numpy as np
import pytest

from qcompiler.errors import OptionError
from qcompiler.graph.ir import copy_of
from qcompiler.graph.layers import find_layers
from qcompiler.grids.codebooks import power
from qcompiler.manager import Manager
from qcompiler.pass_base import Context
from qcompiler.passes.activations.quantize_activations import QuantizeActivations
from qcompiler.passes.weights.nupes import HIGHEST, LOWEST, Nupes
from qcompiler.passes.weights.quantize_weights import QuantizeWeights
from qcompiler.passes.weights.reconstruct_layers import ReconstructLayers
from tests.passes.weights.test_choose_grid import context, network

SCALES = np.geomspace(0.3, 1.1, 33)


def squared_error(rows: np.ndarray, levels: np.ndarray) -> float:
    """Of rounding each row to the nearest level, under the best of many scales, relative to its energy."""
    total, largest = 0.0, np.abs(levels).max()
    for row in rows:
        errors = []
        for part in SCALES:
            scale = part * np.abs(row).max() / largest
            errors.append(float(np.square(np.abs(row[:, None] - scale * levels).min(axis=1)).sum()))
        total += min(errors)
    return total / float(np.square(rows).sum())


@pytest.mark.parametrize("bits", [3, 4])
def test_no_other_exponent_rounds_the_weights_clearly_better(bits: int) -> None:
    graph, ctx = network(), context()
    Manager([Nupes(bits=bits, weighted=False)]).run(graph, ctx)
    for layer in find_layers(graph):
        rows = layer.values.reshape(layer.channels, -1) if layer.axis == 0 else layer.values.T
        chosen = ctx.grids[layer.node.name]
        found = squared_error(rows, chosen.levels)  # type: ignore[attr-defined]
        exponents = np.arange(LOWEST, HIGHEST, 0.1)
        others = [squared_error(rows, power(float(e), bits, None, chosen.largest).levels) for e in exponents]  # type: ignore[attr-defined]
        assert found <= 1.03 * min(others)
        assert max(others) > 1.1 * found


def test_heavy_tails_get_a_small_exponent_and_even_weights_none() -> None:
    graph, ctx = network(), context()
    even = np.linspace(-7, 7, 8 * 8 * 9, dtype=np.float32).reshape(8, 8, 3, 3)
    first = graph.nodes[0]
    first.inputs[1].values = np.random.default_rng(0).permutation(even.reshape(-1)).reshape(even.shape)
    Manager([Nupes(bits=4, weighted=False)]).run(graph, ctx)
    exponents = {node: float(grid.name[len("power4(") : -1]) for node, grid in ctx.grids.items()}
    assert exponents[first.name] == pytest.approx(1, abs=0.12)
    assert exponents[graph.nodes[-1].name] < 0.6


def test_learning_exponents_with_their_codes_loses_less() -> None:
    losses = {}
    for learn in (False, True):
        graph, ctx = network(), context()
        ctx.reference = copy_of(graph)
        steps = [QuantizeActivations(), QuantizeWeights(), Nupes(bits=3, learn=learn), ReconstructLayers(solver="gptq")]
        Manager(steps).run(graph, ctx)
        losses[learn] = [record.held_after for record in ctx.report.reconstructions]
    assert all(after <= before for before, after in zip(losses[False], losses[True], strict=True))
    assert np.prod(losses[True]) < 0.95 * np.prod(losses[False])


def test_the_graph_stays_and_odd_options_are_refused() -> None:
    graph = network()
    before = [layer.values.copy() for layer in find_layers(graph)]
    assert not Nupes(weighted=False).run(graph, Context())
    assert all(np.array_equal(old, layer.values) for old, layer in zip(before, find_layers(graph), strict=True))
    with pytest.raises(ValueError, match="weighted"):
        Nupes(learn=True, weighted=False)
    with pytest.raises(OptionError):
        Nupes(bits=1)
    with pytest.raises(OptionError, match="32, 64 or 128"):
        Nupes(block=48)
