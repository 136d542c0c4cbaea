"""affine and rotate: matrices between layers."""

from __future__ import annotations

import numpy as np
import pytest

from qcompiler.equivalence.hadamard import hadamard
from qcompiler.equivalence.mixing import refusal
from qcompiler.equivalence.regions import find_regions
from qcompiler.graph.ir import Graph
from qcompiler.graph.runner import Runner
from qcompiler.manager import Manager
from qcompiler.pass_base import Context, Pass
from qcompiler.passes.equalize.affine import Affine
from qcompiler.passes.equalize.rotate import Rotate, rotations
from tests.helpers.equivalence_graphs import convolutional, transformer
from tests.helpers.graphs import graph_of
from tests.passes.rewriting import random, reasons


def stream_with_outlier() -> Graph:
    """Two layers with nothing between; one channel of the tensor between them is far larger than the others."""
    return graph_of(
        "g (float[B, 8] x) => (float[B, 6] y) { a = MatMul (x, w)  b = Add (a, c)  m = MatMul (b, v)  y = Add (m, d) }",
        w=(random(8, 8) * [1, 1, 1, 30, 1, 1, 1, 1]).astype(np.float32), c=random(8, seed=1), v=random(8, 6, seed=2),
        d=random(6, seed=3),
    )  # fmt: skip


def feeds() -> list[dict[str, np.ndarray]]:
    return [{"x": random(16, 8, seed=seed)} for seed in range(8)]


def outlier(graph: Graph) -> float:
    """Largest over smallest range of a channel between the layers."""
    name = next(node for node in graph.nodes if node.op == "Add").outputs[0].name
    ranges = np.abs(Runner(graph, [name]).run(feeds()[0])[name]).max(axis=0)
    return float(ranges.max() / ranges.min())


@pytest.mark.parametrize("step", [Rotate(), Affine()])
def test_an_outlier_is_spread(step: Pass) -> None:
    graph = stream_with_outlier()
    before, ratio = Runner(graph).run(feeds()[0])["y"], outlier(graph)
    Manager([step], feed=feeds()[0]).run(graph, Context(data=feeds()))
    assert outlier(graph) < ratio / 2
    np.testing.assert_allclose(Runner(graph).run(feeds()[0])["y"], before, atol=2e-3)


def test_a_rotation_is_orthogonal_and_keeps_blocks_apart() -> None:
    np.testing.assert_array_equal(hadamard(8) @ hadamard(8).T, 8 * np.eye(8))
    region = next(region for region in find_regions(stream_with_outlier()) if region.classes)
    matrices = rotations(region, np.random.default_rng(0))
    np.testing.assert_allclose(matrices @ matrices.transpose(0, 2, 1), np.eye(8)[None], atol=1e-12)
    assert matrices.shape == (1, 8, 8)


def test_what_is_not_linear_is_declined() -> None:
    graph = graph_of(
        "g (float[B, 8] x) => (float[B, 6] y) { a = MatMul (x, w)  b = Relu (a)  y = MatMul (b, v) }",
        w=random(8, 8),
        v=random(8, 6),
    )
    ctx = Context()
    assert not Rotate().run(graph, ctx)
    assert "what lies between its layers admits a diagonal only" in reasons(ctx)


def test_queries_and_keys_are_for_rotation_but_not_for_the_affine_fit() -> None:
    graph, _ = next((g, f) for g, f in map(transformer, range(20)) if any(r.has_inverse for r in find_regions(g)))
    region = next(region for region in find_regions(graph) if region.has_inverse)
    assert refusal(region) is None
    assert not region.ends(writes=False, role="weight")


def test_the_same_seed_gives_the_same_bytes() -> None:
    results = []
    for _ in range(2):
        graph = stream_with_outlier()
        Rotate().run(graph, Context(data=feeds(), seed=3))
        results.append(graph.nodes[0].inputs[1].values.tobytes())
    assert results[0] == results[1]


def test_impossible_options_are_refused() -> None:
    with pytest.raises(ValueError, match="widest"):
        Affine(widest=2.0)


def test_random_networks_compute_the_same() -> None:
    for make in (convolutional, transformer):
        for seed in range(400, 403):
            graph, feed = make(seed)
            before = Runner(graph, fusions=False).run(feed)
            Manager([Rotate(gain=-9.0), Affine(gain=-9.0, epochs=2, steps=4)], feed=feed).run(
                graph, Context(data=[feed, feed])
            )
            for name, value in Runner(graph, fusions=False).run(feed).items():
                np.testing.assert_allclose(
                    value, before[name], atol=4e-4 * max(float(np.abs(before[name]).max()), 1e-3)
                )
