"""Files of every grid are exact on kernels that saturate: x86 CPUs without VNNI."""

from __future__ import annotations

import os

import numpy as np
import onnx_graphsurgeon as gs
import onnxruntime as ort
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from qcompiler.graph.ir import Feed, Graph, QuantSpec, copy_of, quantized_source, spec_of
from qcompiler.graph.layers import Layer, find_layers
from qcompiler.grids import grid_named
from qcompiler.manager import Manager
from qcompiler.options import Options
from qcompiler.pass_base import Context
from qcompiler.presets import Preset
from qcompiler.weights.saturation import LARGEST_INT16, UNLIMITED, exact_scale, largest_pair, pair_limit
from tests.helpers.graphs import graph_of
from tests.helpers.layer_graphs import CONVOLUTIONS, DENSE, LayerGraph
from tests.helpers.vpmaddubsw import exact_in_any_order, saturating_product
from tests.passes.rewriting import random

PAIR_LIMIT = 128
CASES = int(os.environ.get("QCOMPILER_SATURATION_CASES", "15"))
"""Random networks that are compiled and run on saturating kernels; 2000 take about an hour."""
UNIFORM = tuple(f"int{bits}" for bits in range(2, 9))
FITTED = (
    "power2",
    "power3",
    "power5",
    "power8",
    "kmeans2",
    "kmeans4",
    "kmeans5",
    "kmeans6",
    "kmeans7",
    "kmeans8",
    "split1",
    "split3",
    "split6",
)
FIXED = ("power4(0.5)", "power6(0.5)", "post2", "post4", "post5", "nf4", "fp4", "fp4_e1m2", "fp4_e3m0", "fp4_bnb")
IN_BLOCKS = ("int4/32", "nf4/32", "kmeans3/32", "fp4_e3m0/32", "split2/64", "power4/32")
GRIDS = (*UNIFORM, *FITTED, *FIXED, *IN_BLOCKS, "auto")

seeds = st.integers(0, 2**32 - 1)


def session(graph: Graph, **config: str) -> ort.InferenceSession:
    """A session of onnxruntime as users open it, integer kernels and all."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    for key, value in config.items():
        options.add_session_config_entry(f"session.{key}", value)
    return ort.InferenceSession(gs.export_onnx(graph).SerializeToString(), options, providers=["CPUExecutionProvider"])


@given(seeds, st.integers(1, 9), st.integers(1, 70), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_the_oracle_is_what_the_kernels_of_this_cpu_compute(seed, rows, products, columns):
    rng = np.random.default_rng(seed)
    left = rng.integers(150, 256, (rows, products)).astype(np.uint8)
    right = np.where(rng.random((products, columns)) < 0.5, 127, rng.integers(-127, 128, (products, columns))).astype(
        np.int8
    )
    graph = graph_of(
        f"g (uint8[{rows}, {products}] a) => (int32[{rows}, {columns}] y) {{ y = MatMulInteger(a, b) }}", b=right
    )
    exact = left.astype(np.int32) @ right.astype(np.int32)
    wanted = saturating_product(left, right) if cpu_saturates() else exact
    np.testing.assert_array_equal(session(graph).run(None, {"a": left})[0], wanted)


def cpu_saturates() -> bool:
    """True where onnxruntime's uint8 x int8 product of 255 and pairs of 127 is not exact."""
    graph = graph_of(
        "g (uint8[1, 2] a) => (int32[1, 1] y) { y = MatMulInteger(a, b) }", b=np.full((2, 1), 127, np.int8)
    )
    return int(session(graph).run(None, {"a": np.full((1, 2), 255, np.uint8)})[0][0, 0]) != 2 * 255 * 127


@given(seeds, st.integers(1, 6), st.integers(1, 9), st.integers(1, 255))
@settings(max_examples=80, deadline=None)
def test_the_rule_holds_where_the_oracle_is_exact_in_any_order(seed, channels, products, largest_code):
    codes = np.random.default_rng(seed).integers(-127, 128, (channels, products)).astype(np.int8)
    kept = largest_pair(codes, 0) <= LARGEST_INT16 // largest_code
    assert kept.tolist() == [exact_in_any_order(row[None], largest_code) for row in codes]


@given(seeds, st.integers(1, 6), st.integers(1, 7), st.sampled_from([0, 1, None]))
@settings(max_examples=60, deadline=None)
def test_exact_scales_are_the_old_ones_or_larger(seed, channels, products, axis):
    weight = np.random.default_rng(seed).standard_t(2, (channels, products)).astype(np.float32)
    largest = np.abs(weight).max() if axis is None else np.abs(weight).max(axis=1 - axis)
    spec = QuantSpec(
        np.asarray(largest / 127, np.float32), np.zeros(np.shape(largest), np.int8), np.dtype(np.int8), axis
    )
    scale = exact_scale(weight, spec, PAIR_LIMIT)
    codes = QuantSpec(scale, spec.zero_point, spec.dtype, axis).quantize(weight)
    assert exact_in_any_order(codes.reshape(1, -1) if axis is None else np.moveaxis(codes, axis, 0))
    assert scale.shape == spec.scale.shape
    assert (scale >= spec.scale).all()
    assert (scale <= spec.scale * 2.01).all()


def test_a_channel_that_keeps_the_rule_keeps_its_scale():
    weight = np.array([[1.0, -1.0, 0.001], [1.0, 0.9, 0.0]], np.float32)
    spec = QuantSpec(np.full(2, 1 / 127, np.float32), np.zeros(2, np.int8), np.dtype(np.int8), 0)
    scale = exact_scale(weight, spec, PAIR_LIMIT)
    assert scale[0] == spec.scale[0]
    assert scale[1] > spec.scale[1]


@pytest.mark.parametrize("name", [name for name in GRIDS if name != "auto" and "/" not in name])
def test_grids_within_a_level_keep_their_form(name):
    weight = np.random.default_rng(0).standard_t(3, (1, 6, 40))
    whole, part = grid_named(name).fit(weight), grid_named(name).within(64).fit(weight)
    assert part.largest <= 64
    assert part.name.partition("(")[0] == whole.name.partition("(")[0]
    assert len(part.levels) == len(whole.levels) or len(whole.levels) > 16  # neighbours nearer than a step become one
    if name in FIXED and len(part.levels) == len(whole.levels):
        np.testing.assert_allclose(part.levels / part.largest, whole.levels / whole.largest, atol=1 / 64)


def compiled(case: LayerGraph, grid: str, level: int, activations: str) -> tuple[Graph, list[Feed]]:
    """The graph that a preset writes to ``.onnx``, and the feeds that it was calibrated with."""
    graph, feeds = case.graph(), [dict(case.feed(3, seed)) for seed in range(3)]
    return for_onnx(graph, feeds, grid, level, activations), feeds


def for_onnx(graph: Graph, feeds: list[Feed], grid: str, level: int, activations: str) -> Graph:
    name, _, block = grid.partition("/")
    passes = (
        Preset(Options(level, weights=name, block=int(block or 0), activations=activations), for_onnx=True)
        .pipeline()
        .passes
    )
    floats = next(index for index, step in enumerate(passes) if not step.exact)
    ctx = Context(data=feeds)
    Manager(passes[:floats]).run(graph, ctx)
    ctx.reference = copy_of(graph)
    Manager(passes[floats:]).run(graph, ctx)
    return graph


def rows_of(layer: Layer) -> NDArray[np.int8]:
    """int8 codes [C, K] of a stored weight."""
    codes = np.asarray(quantized_source(layer.weight).values)
    return np.moveaxis(codes, layer.axis, 0).reshape(codes.shape[layer.axis], -1)


@given(
    case=st.builds(
        LayerGraph,
        st.sampled_from([*DENSE, *CONVOLUTIONS]),
        st.sampled_from([1, 2, 5, 36]),
        st.sampled_from([1, 3, 8]),
        st.sampled_from([1, 4]),
        st.booleans(),
        st.booleans(),
        st.integers(0, 2**16),
    ),
    grid=st.sampled_from(GRIDS),
    level=st.integers(0, 2),
    activations=st.sampled_from(["uint8", "uint8", "int8", "uint4", "power4", "int16"]),
)
@example(LayerGraph("DepthwiseTwice", 5, 5, 4), "int8", 2, "uint8")
@example(LayerGraph("MatMul", 36, 8, 1), "kmeans6", 2, "uint8")
@example(LayerGraph("Gemm", 36, 8, 1), "int8", 0, "int8")
@example(LayerGraph("Conv", 36, 8, 4), "auto", 1, "uint8")
@settings(max_examples=CASES, deadline=None)
def test_files_of_every_grid_are_exact_where_kernels_saturate(case, grid, level, activations):
    graph, feeds = compiled(case, grid, max(level, 1) if grid == "auto" else level, activations)
    for layer in find_layers(graph):
        inputs = spec_of(layer.node.inputs[0])
        assert not (inputs.dtype.itemsize == 1 and pair_limit(layer) < UNLIMITED) or exact_in_any_order(
            rows_of(layer), largest_code(layer)
        )
    assert_same_on_saturating_kernels(graph, [*feeds, {"x": np.full_like(feeds[0]["x"], 1e3)}])


@pytest.mark.parametrize("activations", ["uint8", "int8"])
def test_constants_of_batched_products_are_exact(activations):
    weight = np.random.default_rng(0).uniform(0.9, 1, (2, 16, 8)).astype(np.float32)
    graph = graph_of(
        "g (float[2, 5, 16] x) => (float[2, 5, 8] y) { r = Relu(x) z = MatMul(r, w) y = Identity(z) }", w=weight
    )
    feeds: list[Feed] = [{"x": np.abs(random(2, 5, 16))}]
    assert_same_on_saturating_kernels(
        for_onnx(graph, feeds, "int8", 1, activations), [{"x": np.full((2, 5, 16), 1e3, np.float32)}]
    )


def largest_code(layer: Layer) -> int:
    """What `pair_limit` took for the largest code, as far as its limit tells."""
    return LARGEST_INT16 // pair_limit(layer)


def assert_same_on_saturating_kernels(graph: Graph, feeds: list[Feed]) -> None:
    """The integer kernels of this CPU give the bits that they give in their exact mode."""
    usual, exact = session(graph), session(graph, x64quantprecision="1")
    for feed in feeds:
        for one, other in zip(usual.run(None, feed), exact.run(None, feed), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("weight", [np.full((4, 4), 127, np.int8), random(4, 4).astype(np.int8)])
def test_the_comparison_sees_saturation(weight):
    graph = graph_of(
        "g (float[3, 4] x) => (float[3, 4] y) { "
        "a = QuantizeLinear(x, s, z) b = DequantizeLinear(a, s, z) v = DequantizeLinear(w, s) y = MatMul(b, v) }",
        w=weight, s=np.float32(0.5), z=np.uint8(0),
    )  # fmt: skip
    feed = {"x": np.full((3, 4), 1e3, np.float32)}
    if not cpu_saturates() or np.abs(weight.astype(int)).max() <= 64:
        assert_same_on_saturating_kernels(graph, [feed])
        return
    with pytest.raises(AssertionError):
        assert_same_on_saturating_kernels(graph, [feed])
