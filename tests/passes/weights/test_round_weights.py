from __future__ import annotations

import numpy as np
import pytest

from qcompiler.errors import OptionError
from qcompiler.graph.ir import Graph
from qcompiler.graph.layers import underlying_constant, weight_slots
from qcompiler.graph.runner import Runner
from qcompiler.grids import uniform
from qcompiler.manager import Manager
from qcompiler.onnx_io import export
from qcompiler.pass_base import Context
from qcompiler.passes.activations.quantize_activations import QuantizeActivations
from qcompiler.passes.weights.quantize_weights import QuantizeWeights
from qcompiler.passes.weights.round_weights import RoundWeights
from qcompiler.passes.weights.store_codes import StoreCodes
from tests.helpers.graphs import graph_of
from tests.passes.rewriting import random

LSTM = "g (float[5, N, 24] x) => (float[5, 1, N, 16] y) { y, h, c = LSTM <hidden_size = 16> (x, w, r, b) }"
GRU = (
    'g (float[5, N, 24] x) => (float[5, 2, N, 16] y) { y, h = GRU <hidden_size = 16, direction = "bidirectional"> '
    "(x, w, r, b) }"
)
UP = "g (float[N, 24, 5, 5] x) => (float[N, 16, 10, 10] y) { y = ConvTranspose <strides = [2, 2]> (x, w, b) }"
NETS = {
    "lstm": (LSTM, {"w": (1, 64, 24), "r": (1, 64, 16), "b": (1, 128)}, (5, 2, 24)),
    "gru": (GRU, {"w": (2, 48, 24), "r": (2, 48, 16), "b": (2, 96)}, (5, 2, 24)),
    "transposed": (UP, {"w": (24, 16, 2, 2), "b": (16,)}, (2, 24, 5, 5)),
}


def network(kind: str) -> tuple[Graph, list[dict[str, np.ndarray]]]:
    text, shapes, feed = NETS[kind]
    constants = {
        name: random(*shape, seed=seed, low=-0.5, high=0.5) for seed, (name, shape) in enumerate(shapes.items())
    }
    return graph_of(text, **constants), [{"x": random(*feed, seed=seed)} for seed in range(4)]


def error_of(kind: str, *steps: RoundWeights) -> tuple[float, Graph, Context]:
    graph, feeds = network(kind)
    ctx = Context(data=feeds)
    Manager([QuantizeActivations(), QuantizeWeights(), *steps]).run(graph, ctx)
    pairs = [(Runner(network(kind)[0]).run(feed)["y"], Runner(graph).run(feed)["y"]) for feed in feeds]
    return sum(np.sum((a - b) ** 2) for a, b in pairs) / sum(np.sum(a**2) for a, _ in pairs), graph, ctx


@pytest.mark.parametrize("kind", NETS)
def test_weights_lie_on_the_grid_and_more_levels_lose_less(kind: str) -> None:
    losses = {}
    for grid in ("int2", "int3", "kmeans4", "int6"):
        losses[grid], graph, ctx = error_of(kind, RoundWeights(grid=grid))
        node = next(node for node in graph.nodes if weight_slots(node))
        before = {slot: underlying_constant(node.inputs[slot]).values for slot in weight_slots(node)}
        Manager([StoreCodes()]).run(graph, ctx)
        for slot, values in before.items():
            spec_node = node.inputs[slot].inputs[0]
            codes, scale = spec_node.inputs[0].values, spec_node.inputs[1].values
            assert len(np.unique(codes)) <= {"int2": 3, "int3": 7, "kmeans4": 16, "int6": 63}[grid]
            shape = [-1 if axis == 1 else 1 for axis in range(codes.ndim)]
            np.testing.assert_array_equal(codes * scale.reshape(shape), values)
    assert losses["int6"] < losses["kmeans4"] < losses["int3"] < losses["int2"] < 0.5
    assert losses["int6"] < 4 * error_of(kind)[0] + 1e-3


def test_recurrent_weights_leave_packed() -> None:
    graph, feeds = network("lstm")
    ctx = Context(data=feeds)
    Manager([QuantizeActivations(), QuantizeWeights(), RoundWeights(), StoreCodes()]).run(graph, ctx)
    model = export.to_model(graph)
    assert [node.op_type for node in model.graph.node].count("Cast") == 2
    np.testing.assert_array_equal(Runner(model).run(feeds[0])["y"], Runner(graph).run(feeds[0])["y"])


def test_a_chosen_grid_comes_first_and_unknown_ones_are_refused() -> None:
    graph, feeds = network("transposed")
    ctx = Context(data=feeds, grids={graph.nodes[0].name: uniform(2)})
    Manager([QuantizeActivations(), QuantizeWeights(), RoundWeights(grid="int8"), StoreCodes()]).run(graph, ctx)
    node = next(node for node in graph.nodes if node.op == "ConvTranspose")
    assert set(np.unique(underlying_constant(node.inputs[1]).values)) == {-1, 0, 1}
    with pytest.raises(OptionError):
        RoundWeights(grid="int1")


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_blocks_of_recurrent_weights_have_factors_and_leave_packed(kind: str) -> None:
    text = {"lstm": LSTM, "gru": GRU}[kind].replace("24", "80").replace("N, 16", "N, 72").replace("= 16", "= 72")
    directions, gates = (1, 4) if kind == "lstm" else (2, 3)
    shapes = {"w": (directions, gates * 72, 80), "r": (directions, gates * 72, 72), "b": (directions, gates * 144)}
    constants = {
        name: random(*shape, seed=seed, low=-0.3, high=0.3) ** 3 for seed, (name, shape) in enumerate(shapes.items())
    }
    feeds, errors = [{"x": random(5, 2, 80, seed=seed)} for seed in range(4)], {}
    for grid in ("int3", "int3/32"):
        graph, ctx = graph_of(text, **constants), Context(data=feeds)
        Manager([QuantizeActivations(), QuantizeWeights(), RoundWeights(grid=grid), StoreCodes()]).run(graph, ctx)
        model = export.to_model(graph)
        errors[grid] = sum(
            np.sum((Runner(model).run(feed)["y"] - Runner(graph_of(text,
            **constants)).run(feed)["y"]) ** 2) for feed in feeds
        )  # fmt: skip
    assert errors["int3/32"] < 0.9 * errors["int3"]
    assert [node.op_type for node in model.graph.node].count("Mul") == 2
    assert model.ByteSize() < sum(value.size for name, value in constants.items() if name != "b") * 4.2 / 8 + 12000
