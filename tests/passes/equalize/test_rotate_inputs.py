from __future__ import annotations

import numpy as np
import pytest

from qcompiler.activations.range_search import Rows
from qcompiler.equivalence.hadamard import hadamard, hadamard_order
from qcompiler.graph.ir import Graph, producer, spec_of
from qcompiler.graph.runner import Runner
from qcompiler.manager import Manager
from qcompiler.pass_base import Context
from qcompiler.passes.activations.narrow_activations import NarrowActivations
from qcompiler.passes.activations.quantize_activations import QuantizeActivations
from qcompiler.passes.equalize.rotate_inputs import RotateInputs, Turn, best_divisors, total_loss
from qcompiler.passes.weights.quantize_weights import QuantizeWeights
from qcompiler.passes.weights.store_codes import StoreCodes
from tests.helpers.graphs import graph_of, ops
from tests.passes.rewriting import random, reasons, rewrite

TEXT = (
    "h = MatMul(x, w1)  n = LayerNormalization(h, gain)  a = MatMul(n, w2)  b = MatMul(n, w3)  s = Add(a, b)  y = "
    "Add(s, n)"
)
FEEDS = [{"x": random(2, 20, 32, seed=seed)} for seed in range(4)]


def network(outlier: float = 20.0) -> Graph:
    """A normalization whose outputs have one large channel, read by two layers and a sum."""
    first, second, third = random(32, 64, seed=1), random(64, 64, seed=2), random(64, 64, seed=3)
    for weight in (second, third):
        weight[5] *= 4 / outlier
    gain = np.ones(64, np.float32)
    gain[5] = outlier
    return graph_of(
        f"g (float[B, 20, 32] x) => (float[B, 20, 64] y) {{ {TEXT} }}", w1=first, w2=second, w3=third, gain=gain
    )


@pytest.mark.parametrize("size", [1, 2, 4, 12, 20, 24, 64, 384])
def test_hadamard_matrices_are_orthogonal_signs(size: int) -> None:
    matrix = hadamard(size)
    np.testing.assert_array_equal(np.abs(matrix), 1)
    np.testing.assert_array_equal(matrix @ matrix.T, size * np.eye(size))


def test_the_largest_block_that_divides_the_channels() -> None:
    assert [hadamard_order(384, 128), hadamard_order(384, 384), hadamard_order(1536, 128), hadamard_order(36, 128),
    hadamard_order(7, 64)] == [
        128, 384, 128, 12, 1,
    ]  # fmt: skip


def test_the_float_function_stays_and_both_readers_share_a_rotation() -> None:
    graph = network()
    Manager([RotateInputs()]).run(graph, ctx := Context(data=FEEDS))
    assert [region.tensor for region in ctx.report.regions] == ["n"]
    assert ops(graph) == [
        "MatMul",
        "LayerNormalization",
        "Mul",
        "Reshape",
        "MatMul",
        "Reshape",
        "MatMul",
        "MatMul",
        "Add",
        "Add",
    ]
    np.testing.assert_allclose(
        Runner(graph).run(FEEDS[0])["y"], Runner(network()).run(FEEDS[0])["y"], rtol=1e-4, atol=0.01
    )
    assert "comes from outside" in reasons(ctx)[0]


def test_a_rotation_that_gains_nothing_is_not_made() -> None:
    graph = network(outlier=4.0)
    ctx = rewrite(graph, RotateInputs(gain=0.9), x=FEEDS[0]["x"])
    assert "Reshape" not in ops(graph)
    assert any("too little" in reason for reason in reasons(ctx))


def test_channels_without_a_hadamard_matrix_stay() -> None:
    graph = graph_of("g (float[N, 7] x) => (float[N, 7] y) { r = Relu(x)  y = MatMul(r, w) }", w=random(7, 7))
    assert any("no blocks" in reason for reason in reasons(rewrite(graph, RotateInputs(), x=random(3, 7))))


def test_only_the_rotated_tensor_is_narrow_and_the_outputs_err_less() -> None:
    expected, errors = Runner(network()).run(FEEDS[3])["y"], []
    for before in ((), (RotateInputs(),)):
        graph = network()
        passes = (*before, QuantizeActivations(), QuantizeWeights(), NarrowActivations(), StoreCodes())
        Manager(passes).run(graph, Context(data=FEEDS))
        errors.append(float(np.square(Runner(graph).run(FEEDS[3])["y"] - expected).sum()))
    assert errors[1] < 0.5 * errors[0]
    turn = [node for node in graph.nodes if node.op == "MatMul"][1]
    assert spec_of(turn.inputs[1]).scale.tobytes() == np.full(64, 1 / 8 / 127, np.float32).tobytes()  # type: ignore[union-attr]
    clip = next(node for node in graph.nodes if node.op == "Clip")
    assert producer(clip.inputs[0]) is turn


def test_the_divisors_are_those_of_least_noise_behind_a_rotation() -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((1, 800, 16)) * rng.lognormal(0, 1.5, 16)).astype(np.float32)
    weight = (rng.standard_normal((1, 12, 16)) * rng.lognormal(0, 1, 16)).astype(np.float32)
    rows = [Rows(weight, x, float(np.square(x @ weight.transpose(0, 2, 1)).sum()))]
    best, matrix = best_divisors(rows), hadamard(16) / 4

    def loss(divisors: np.ndarray) -> float:
        return total_loss([Turn(divisors, matrix).of(each) for each in rows], 16, 7)

    others = [np.ones(16), best**0.5, best**1.5, *(best * rng.lognormal(0, 0.7, 16) for _ in range(10))]
    assert loss(best) < 0.5 * loss(others[0])
    assert all(loss(best) < 1.02 * loss(other) for other in others)
    np.testing.assert_allclose(np.log(best).mean(), 0, atol=1e-9)
