"""Equivalence regions: whatever transform a region admits, the float function stays as it is; and what must not be
found is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from qcompiler.equivalence.axes import moved_by_reshape, moved_by_transpose
from qcompiler.equivalence.fold import Workspace, shift_refusal
from qcompiler.equivalence.matrices import columns_of, rows_of, weight_of_rows, with_columns
from qcompiler.equivalence.regions import Region, find_regions
from qcompiler.graph.ir import Graph
from qcompiler.graph.runner import Runner
from tests.helpers.equivalence_graphs import convolutional, transformer
from tests.helpers.graphs import graph_of, ops
from tests.passes.rewriting import random, tensors_of

Feed = dict[str, NDArray[Any]]
GRAPHS = 60
"""Random networks of each kind. ``pytest tests/equivalence/test_regions.py -k random --graphs 1000`` tries 1,000: no
difference found.
"""


def transform_all(graph: Graph, rng: np.random.Generator) -> None:
    """Every region gets a random transform of the most general kind that it admits, or of a simpler one."""
    work = Workspace(graph)
    for region in find_regions(graph):
        if region.classes == 0:
            continue
        channels, block = region.places[0].channels, region.block
        if shift_refusal(graph, region) is None and rng.random() < 0.7:
            work.shift(region, rng.uniform(-1, 1, channels))
        if block > 1 and rng.random() < 0.7:
            work.mix(region, np.eye(block) + rng.uniform(-0.5, 0.5, (channels // block, block, block)) / block)
        work.scale(region, rng.uniform(0.3, 3, region.classes))
    work.commit({})
    graph.cleanup(remove_unused_graph_inputs=False).toposort()


def assert_unchanged(graph: Graph, feed: Feed, change: Callable[[Graph], None]) -> None:
    """All outputs, and the tensors inside that keep their names, keep their values."""
    before = Runner(graph, tensors_of(graph), fusions=False).run(feed)
    change(graph)
    names = [name for name in tensors_of(graph) if name in before]
    assert set(names) >= {tensor.name for tensor in graph.outputs}
    for name, value in Runner(graph, names, fusions=False).run(feed).items():
        limit = 2e-4 * max(float(np.abs(before[name]).max(initial=0.0)), 1e-3)
        np.testing.assert_allclose(value, before[name], rtol=0, atol=limit, err_msg=name)


@pytest.mark.parametrize("make", [convolutional, transformer])
def test_random_transforms_of_random_networks_change_nothing(
    make: Callable[[int], tuple[Graph, Feed]], request: pytest.FixtureRequest
) -> None:
    for seed in range(request.config.getoption("--graphs") or GRAPHS):
        graph, feed = make(seed)
        assert_unchanged(graph, feed, lambda g, s=seed: transform_all(g, np.random.default_rng(s)))  # type: ignore[misc]


def test_the_identity_writes_nothing() -> None:
    graph, _ = convolutional(3)
    before = ops(graph), [tensor.name for node in graph.nodes for tensor in (*node.inputs, *node.outputs)]
    work = Workspace(graph)
    for region in find_regions(graph):
        work.scale(region, np.ones(region.classes))
    assert not work.commit({})
    assert (ops(graph), [tensor.name for node in graph.nodes for tensor in (*node.inputs, *node.outputs)]) == before


def test_powers_of_two_change_no_bit() -> None:
    for seed in range(20):
        graph, feed = transformer(seed)
        rng, before = np.random.default_rng(seed), Runner(graph, fusions=False).run(feed)
        work = Workspace(graph)
        for region in find_regions(graph):
            work.scale(region, np.exp2(rng.integers(-4, 5, region.classes)))
        work.commit({})
        for name, value in Runner(graph, fusions=False).run(feed).items():
            np.testing.assert_array_equal(value, before[name])


def only_region(graph: Graph, name: str) -> Region:
    return next(region for region in find_regions(graph) if any(place.tensor.name == name for place in region.places))


def reasons_of(region: Region) -> str:
    return "; ".join(reason for _, reason in region.reasons)


def test_branches_of_a_residual_sum_are_one_region() -> None:
    graph = graph_of(
        "g (float[N, 4, 5, 5] x) => (float[N, 4, 5, 5] y) { a = Conv (x, w) b = Relu (a) c = Conv (b, w2) d = Add (a, "
        "c) y = Conv (d, w3) }",
        w=random(4, 4, 1, 1), w2=random(4, 4, 1, 1, seed=1), w3=random(4, 4, 1, 1, seed=2),
    )  # fmt: skip
    region = only_region(graph, "a")
    assert {place.tensor.name for place in region.places} == {"a", "b", "c", "d"}
    assert (region.classes, region.block) == (4, 1)  # the ReLU admits no matrix
    assert len(region.ends(writes=True, role="weight")) == len(region.ends(writes=False, role="weight")) == 2


def test_channels_of_a_concat_keep_their_own_factors() -> None:
    graph = graph_of(
        "g (float[N, 2, 4, 4] x) => (float[N, 3, 4, 4] y, float[N, 2, 4, 4] b) "
        "{ a = Conv (x, w) b = Conv (x, w2) c = Concat <axis = 1> (a, b) y = Conv (c, w3) }",
        w=random(3, 2, 1, 1), w2=random(2, 2, 1, 1, seed=1), w3=random(3, 5, 1, 1, seed=2),
    )  # fmt: skip
    region = only_region(graph, "c")
    assert region.classes == 3  # those of b, an output, are frozen
    assert next(place for place in region.places if place.tensor.name == "c").classes.tolist() == [0, 1, 2, -1, -1]


def test_queries_and_keys_take_inverse_transforms_head_by_head() -> None:
    graph, _ = transformer(0)
    regions = [region for region in find_regions(graph) if region.has_inverse]
    graphs = iter(range(1, 20))
    while not regions:
        graph, _ = transformer(next(graphs))
        regions = [region for region in find_regions(graph) if region.has_inverse]
    assert {region.block for region in regions} == {4}
    assert all(not region.ends(writes=False) for region in regions)


def test_the_channels_of_a_flattened_tensor_share_a_factor() -> None:
    graph = graph_of(
        "g (float[N, 2, 2, 2] x) => (float[N, 3] y) { a = Conv (x, w) b = Flatten (a) y = Gemm <transB = 1> (b, v) }",
        w=random(2, 2, 1, 1), v=random(3, 8),
    )  # fmt: skip
    region = only_region(graph, "b")
    assert region.classes == 2
    assert next(place for place in region.places if place.tensor.name == "b").classes.tolist() == [
        0,
        0,
        0,
        0,
        1,
        1,
        1,
        1,
    ]


@pytest.mark.parametrize(("body", "reason"), [
    ("a = Conv (x, w)  y = Gelu (a)", "Gelu does not commute"),
    ("a = Conv (x, w)  y = Identity (a)", "is an output of the graph"),
    ("a = Conv (x, w)  y = Add (a, x)", "is an input of the graph"),
    ("a = Conv (x, w)  b = Slice (a, one, three, one)  y = Conv (b, w2)", "takes some of the channels"),
    ("a = Conv (x, w)  b = Transpose <perm = [0, 2, 1, 3]> (a)  y = Conv (b, v)", "another axis"),
    ("a = Conv (x, w)  b = Conv (a, w)  y = Relu (b)", "are shared"),
    ("a = Conv (x, w)  y = Softmax <axis = 1> (a)", "Softmax does not commute"),
    ("a = Conv (x, w)  b = Conv (a, v)  y = Mul (b, b)", "factor of a Mul"),
])  # fmt: skip
def test_what_is_declined_says_why(body: str, reason: str) -> None:
    graph = graph_of(
        f"g (float[N, 4, 4, 4] x) => (float[] y) {{ {body} }}", w=random(4, 4, 1, 1), v=random(4, 4, 1, 1, seed=3),
        w2=random(2, 2, 1, 1, seed=1),
        one=np.array([1]), three=np.array([3]),
    )  # fmt: skip
    texts = [reasons_of(region) for region in find_regions(graph)]
    assert any(reason in text for text in texts), texts


def test_padding_forbids_a_shift_but_not_a_scale() -> None:
    text = (
        "g (float[N, 2, 4, 4] x) => (float[N, 2, 4, 4] y) {{ a = Conv (x, w, b)  y = Conv <pads = [{p}, {p}, {p}, "
        "{p}]> (a, v, b) }}"
    )
    for pad, size in ((0, 1), (1, 3)):
        graph = graph_of(text.format(p=pad), w=random(2, 2, 1, 1), v=random(2, 2, size, size), b=random(2))
        region = only_region(graph, "a")
        assert (shift_refusal(graph, region) is None, region.classes) == (pad == 0, 2)


def test_a_shift_passes_an_average_over_a_softmax() -> None:
    for seed in range(12):
        graph, feed = transformer(seed)
        shifted = [
            region for region in find_regions(graph) if shift_refusal(graph, region) is None and len(region.places) > 3
        ]
        if shifted:
            break

    def change(target: Graph) -> None:
        work = Workspace(target)
        for region in shifted:
            work.shift(region, np.full(region.places[0].channels, 0.7))
        assert work.commit({})
    assert shifted
    assert_unchanged(graph, feed, change)


def test_a_layout_survives_reshape_and_transpose() -> None:
    split = moved_by_reshape((2,), (3, 5, 12), (3, 5, 4, 3))
    assert split is not None
    assert (split.layout, split.source) == ((2, 3), None)
    assert moved_by_transpose((2, 3), (0, 2, 1, 3), backward=False) == (1, 3)
    assert moved_by_transpose((1, 3), (0, 2, 1, 3), backward=True) == (2, 3)
    flat = moved_by_reshape((1,), (3, 2, 2), (3, 4))
    assert flat is not None
    assert flat.source is not None
    assert (flat.layout, flat.source.tolist()) == ((1,), [0, 0, 1, 1])
    assert moved_by_reshape((1,), (3, 4), (2, 6)) is None or moved_by_reshape((1,), (3, 4), (2, 6)).layout == (0, 1)  # type: ignore[union-attr]


@pytest.mark.parametrize("text", [
    "y = Conv <group = 2> (x, w)", "y = ConvTranspose <group = 2> (x, w)", "y = Conv (x, w)",
])  # fmt: skip
def test_rows_and_columns_are_views_of_one_weight(text: str) -> None:
    weight = random(4, 3, 2, 2)
    node = graph_of(f"g (float[1, 8, 4, 4] x) => (float[] y) {{ {text} }}", w=weight).nodes[0]
    rows = rows_of(node, weight)
    np.testing.assert_array_equal(weight_of_rows(node, rows, weight.shape), weight)
    columns = columns_of(node, rows)
    np.testing.assert_array_equal(with_columns(node, columns), rows)
    groups = int(node.attrs.get("group", 1))
    assert columns.shape[0] == rows.shape[1] * groups
    assert rows.shape[0] == columns.shape[1] * groups
