from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest

import qcompiler
from qcompiler import lowering
from qcompiler.api import Options
from qcompiler.feeds.selection import held_out
from qcompiler.graph.ir import copy_of
from qcompiler.graph.layers import find_layers
from qcompiler.graph.runner import Runner
from qcompiler.losses.network_loss import NetworkLoss
from qcompiler.manager import Manager
from qcompiler.pass_base import Context
from qcompiler.passes.replace.snnk_bundle import SnnkBundle
from qcompiler.pipeline import Pipeline
from tests.helpers.graphs import graph_of, ops

D, HIDDEN, OUT, TRUE = 12, 64, 5, 10


def redundant(function="Relu", seed=0, layers=2):
    """A network of ``HIDDEN`` neurons a layer, whose first layer has only ``TRUE`` different ones."""
    rng = np.random.default_rng(seed)
    few, offsets = rng.standard_normal((D, TRUE)) / np.sqrt(D), rng.standard_normal(TRUE) * 0.3
    which = rng.integers(0, TRUE, HIDDEN)
    weights = {
        "w1": few[:, which],
        "b1": offsets[which],
        "w2": rng.standard_normal((HIDDEN, OUT)) / 8,
        "b2": rng.standard_normal(OUT),
    }
    body = f"h = Gemm(x, w1, b1) a = {function}(h) y = Gemm(a, w2, b2)"
    if layers == 3:
        weights |= {
            "w2": rng.standard_normal((HIDDEN, HIDDEN)) / 8,
            "b2": np.zeros(HIDDEN),
            "w3": rng.standard_normal((HIDDEN, OUT)) / 8,
        }
        body = f"h = Gemm(x, w1, b1) a = {function}(h) k = Gemm(a, w2, b2) c = {function}(k) y = Gemm(c, w3)"
    text = f"g (float[N, {D}] x) => (float[N, {OUT}] y) {{ {body} }}"
    return graph_of(text, **{name: value.astype(np.float32) for name, value in weights.items()})


def feeds(count=10, rows=80, seed=1, scale=1.0):
    rng = np.random.default_rng(seed)
    return [{"x": (scale * rng.standard_normal((rows, D))).astype(np.float32)} for _ in range(count)]


def bundle(graph, data=None, reference=None, **options):
    ctx = Context(data=data or feeds(), reference=reference)
    changed = SnnkBundle(**{"latency": "off", **options}).run(graph, ctx)
    graph.cleanup().toposort()
    return changed, ctx.report


def relative_error(graph, original, data):
    got, want = (
        np.concatenate([Runner(each).run(feed)["y"] for feed in data]).astype(np.float64) for each in (graph, original)
    )
    return float(np.square(got - want).sum() / np.square(want - want.mean(axis=0)).sum())


@pytest.mark.parametrize("function", ["Relu", "Gelu", "Tanh", "HardSwish"])
def test_repeated_neurons_are_found_and_the_rest_goes(function):
    graph = redundant(function)
    original = copy_of(graph)
    changed, report = bundle(graph, error=0.001)
    assert changed
    (record,) = report.replacements
    assert record.kept
    assert record.macs_after <= record.macs_before / 4
    assert find_layers(graph).__next__().channels <= TRUE + 2
    assert record.error == pytest.approx(relative_error(graph, original, feeds(seed=2)), rel=1, abs=1e-6)


def test_a_budget_that_nothing_meets_leaves_the_graph_byte_identical_and_says_what_it_would_cost():
    rng = np.random.default_rng(0)
    weights = {
        name: rng.standard_normal(shape).astype(np.float32)
        for name, shape in (("w1", (D, HIDDEN)), ("w2", (HIDDEN, OUT)))
    }
    graph = graph_of(
        f"g (float[N, {D}] x) => (float[N, {OUT}] y) {{ h = Gemm(x, w1) a = Relu(h) y = Gemm(a, w2) }}", **weights
    )
    before = gs.export_onnx(graph).SerializeToString(deterministic=True)
    changed, report = bundle(graph, error=1e-4, cost=0.5)
    assert not changed
    assert gs.export_onnx(graph).SerializeToString(deterministic=True) == before
    (record,) = report.replacements
    assert not record.kept
    assert record.macs_after <= record.macs_before / 2
    assert record.error > 1e-4
    assert "is allowed" in record.reason
    assert report.declined[0].reason == record.reason


def test_feeds_held_out_that_are_strange_refuse_what_fits_the_others():
    graph, held = redundant(), held_out(10, 0)
    data = [{"x": feed["x"] + np.float32(40 * (number in held))} for number, feed in enumerate(feeds(scale=0.01))]
    before = gs.export_onnx(graph).SerializeToString(deterministic=True)
    changed, _ = bundle(graph, data, error=1e-6, kinds="cos")
    assert not changed
    assert gs.export_onnx(graph).SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("kinds", ["relu", "cos", "product", "neurons"])
@pytest.mark.parametrize("skip", ["always", "never"])
def test_each_kind_of_features_can_be_asked_for(kinds, skip):
    graph = redundant("Gelu")
    original = copy_of(graph)
    changed, report = bundle(graph, kinds=kinds, skip=skip, error=50.0, cost=0.6, goal="error")
    assert changed
    assert kinds in report.replacements[0].form or report.replacements[0].form == "affine"
    functions = {"relu": "Relu", "cos": "Cos", "product": "Mul", "neurons": "Gelu"}
    assert functions[kinds] in ops(graph)
    assert ("Add" in ops(graph)) == (skip == "always")
    assert relative_error(graph, original, feeds(seed=3)) == pytest.approx(report.replacements[0].error, rel=0.4)


def test_a_linear_block_becomes_its_affine_skip():
    rng = np.random.default_rng(0)
    weights = {
        name: rng.standard_normal(shape).astype(np.float32)
        for name, shape in (("w1", (D, HIDDEN)), ("w2", (HIDDEN, OUT)))
    }
    graph = graph_of(f"g (float[N, {D}] x) => (float[N, {OUT}] y) {{ h = Gemm(x, w1) y = Gemm(h, w2) }}", **weights)
    original = copy_of(graph)
    changed, report = bundle(graph, error=1e-6)
    assert changed
    assert report.replacements[0].form == "affine"
    assert ops(graph) == ["Gemm"]
    assert relative_error(graph, original, feeds(seed=3)) < 1e-9


def test_a_whole_chain_is_bundled_where_that_is_allowed_and_else_its_pairs():
    whole, pairs = redundant(layers=3), redundant(layers=3)
    _, report = bundle(whole, error=0.2)
    assert report.replacements[0].kept
    assert len([op for op in ops(whole) if op == "Gemm"]) <= 3
    changed, report = bundle(pairs, error=0.02, chains=False)
    assert changed
    assert len([op for op in ops(pairs) if op == "Gemm"]) <= 4  # the last pair may have a skip
    assert report.replacements[0].region == "Gemm_0 … Gemm_2"
    assert NetworkLoss(redundant(layers=3), feeds(seed=5))(pairs) < 0.03


def test_the_networks_outputs_have_the_same_budget():
    """A block whose small error becomes a large one behind it is refused."""
    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.standard_normal((D, HIDDEN)),
        "w2": rng.standard_normal((HIDDEN, D)) / 8,
        "huge": np.full(D, -1e3),
    }
    body = "h = Gemm(x, w1) a = Relu(h) k = Gemm(a, w2) s = Mul(k, huge) t = Sin(s) y = Identity(t)"
    graph = graph_of(
        f"g (float[N, {D}] x) => (float[N, {D}] y) {{ {body} }}",
        **{key: value.astype(np.float32) for key, value in weights.items()},
    )
    changed, report = bundle(graph, error=0.15, cost=0.74)
    assert not changed
    assert "the network's outputs err" in report.replacements[-1].reason


def test_the_same_seed_gives_the_same_bytes():
    results = []
    for _ in range(2):
        graph = redundant("Gelu")
        bundle(graph, kinds="cos,relu", error=5.0, goal="error")
        results.append(gs.export_onnx(graph).SerializeToString(deterministic=True))
    assert results[0] == results[1]


@pytest.mark.parametrize(
    "options", ["error=0", "cost=1.5", "kinds='tanh'", "directions=up", "goal=speed", "latency=never"]
)
def test_bad_options_are_refused_in_one_line(options):
    with pytest.raises(qcompiler.errors.OptionError, match="snnk-bundle"):
        Pipeline.parse(f"snnk-bundle({options})")


def test_a_layer_too_large_for_its_moments_is_declined(monkeypatch):
    monkeypatch.setattr("qcompiler.passes.replace.snnk_bundle.LIMIT_BYTES", 1000)
    graph = redundant()
    changed, report = bundle(graph)
    assert not changed
    assert "its moments would take more than" in report.declined[0].reason


@pytest.mark.parametrize("kinds", ["neurons", "cos", "relu", "product"])
def test_a_bundled_model_runs_on_the_machine_as_its_integer_onnx_does(kinds):
    model = gs.export_onnx(redundant("Gelu"))
    text = f"normalize,snnk-bundle(kinds='{kinds}', error=50.0, cost=0.6, goal=error, latency=report),quantize"
    compiled = qcompiler.compile(model, data=feeds(), options=Options(passes=text), for_onnx=False)
    record = compiled.report.replacements[0]
    assert record.kept
    assert record.milliseconds_after > 0
    oracle, session = Runner(lowering.to_integer_onnx(compiled.integer_graph), fusions=False), compiled.session()
    for feed in feeds(3, seed=8):
        np.testing.assert_array_equal(session.run(feed)["y"], oracle.run(feed)["y"])


def test_passes_behind_it_know_the_layers_as_they_are_now():
    model = gs.export_onnx(redundant("Gelu"))
    quantize = "quantize-activations,quantize-weights,reconstruct-layers(grid=int4),correct-bias"
    text = f"normalize,snnk-bundle(latency=off),{quantize}"
    compiled = qcompiler.compile(model, data=feeds(), options=Options(passes=f"{text},tune-statistics,store-codes"))
    assert compiled.report.replacements[0].kept
    assert compiled.report.output_sqnr_db["y"] > 10


def test_a_pass_alone_has_no_float_model_to_compare_with_but_the_graph_itself():
    graph = redundant()
    ctx = Context(data=feeds())
    Manager([SnnkBundle(latency="off")]).run(graph, ctx)
    assert ctx.report.replacements[0].kept
