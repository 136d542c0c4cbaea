from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest

import qcompiler
from qcompiler import lowering
from qcompiler.api import Options
from qcompiler.graph.ir import copy_of
from qcompiler.graph.layers import find_layers
from qcompiler.graph.runner import Runner
from qcompiler.pass_base import Context
from qcompiler.passes.replace.low_rank import LowRank
from qcompiler.pipeline import Pipeline
from qcompiler.replacement.factor import fit_cores
from qcompiler.replacement.factored import write_cores
from tests.helpers.graphs import graph_of, ops

D, OUT = 48, 40
WINDOW = "pads = [1, 1, 1, 1], strides = [2, 2]"


def weights(rank, seed=0):
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((D, rank)) @ rng.standard_normal((rank, OUT)) / rank
    return {"w": weight.astype(np.float32), "b": rng.standard_normal(OUT).astype(np.float32)}


FORMS = {
    "Gemm": (f"g (float[N, {D}] x) => (float[N, {OUT}] y) {{ y = Gemm(x, w, b) }}", (60, D)),
    "MatMul": (f"g (float[N, T, {D}] x) => (float[N, T, {OUT}] y) {{ m = MatMul(x, w) y = Add(m, b) }}", (12, 5, D)),
    "Conv": (f"g (float[N, {D}, H, W] x) => (float[N, {OUT}, H, W] y) {{ y = Conv(x, w, b) }}", (4, D, 5, 3)),
    "Conv of nine taps": (
        f"g (float[N, {D}, H, W] x) => (float[N, {OUT}, I, J] y) {{ y = Conv<{WINDOW}>(x, w, b) }}",
        (2, D, 9, 7),
    ),
}


def case(form, rank=8):
    text, shape = FORMS[form]
    values = weights(rank)
    if form == "Conv":
        values["w"] = values["w"].T.reshape(OUT, D, 1, 1)
    if form == "Conv of nine taps":
        rng = np.random.default_rng(0)
        values["w"] = (
            (rng.standard_normal((OUT, rank)) @ rng.standard_normal((rank, D * 9)) / rank)
            .astype(np.float32)
            .reshape(OUT, D, 3, 3)
        )
    feeds = [
        {"x": np.random.default_rng([3, index]).standard_normal(shape).astype(np.float32) + np.float32(0.5)}
        for index in range(10)
    ]
    return graph_of(text, **values), feeds


def factor(graph, feeds, **options):
    ctx = Context(data=feeds)
    changed = LowRank(**{"latency": "off", **options}).run(graph, ctx)
    graph.cleanup().toposort()
    return changed, ctx.report


@pytest.mark.parametrize("form", FORMS)
def test_a_layer_of_low_rank_becomes_two(form):
    graph, feeds = case(form)
    original = copy_of(graph)
    changed, report = factor(graph, feeds, error=1e-4)
    assert changed
    (record,) = report.replacements
    assert record.form == "rank 8"
    assert record.macs_after == 8 * (OUT + D * (9 if "nine" in form else 1))
    assert len(list(find_layers(graph))) == 2
    x = {"x": np.random.default_rng(9).standard_normal(FORMS[form][1]).astype(np.float32)}
    np.testing.assert_allclose(Runner(graph).run(x)["y"], Runner(original).run(x)["y"], rtol=1e-3, atol=1e-3)


def test_inputs_of_low_rank_do_as_well_as_weights():
    """The weight has full rank, what it meets has not: only the SVD of W C^{1/2} sees that."""
    rng = np.random.default_rng(0)
    graph = graph_of(FORMS["Gemm"][0], w=rng.standard_normal((D, OUT)).astype(np.float32), b=np.zeros(OUT, np.float32))
    basis = rng.standard_normal((6, D))
    feeds = [{"x": (3 + rng.standard_normal((60, 6)) @ basis).astype(np.float32)} for _ in range(10)]
    changed, report = factor(graph, feeds, error=1e-4)
    assert changed
    assert report.replacements[0].form == "rank 8"


@pytest.mark.parametrize("form", ["svd", "tensor-train"])
def test_a_budget_that_nothing_meets_leaves_the_graph_byte_identical(form):
    graph, feeds = case("MatMul", rank=D)
    before = gs.export_onnx(graph).SerializeToString(deterministic=True)
    changed, report = factor(graph, feeds, error=1e-4, form=form)
    assert not changed
    assert gs.export_onnx(graph).SerializeToString(deterministic=True) == before
    assert "is allowed" in report.replacements[0].reason
    assert report.declined[0].reason == report.replacements[0].reason


@pytest.mark.parametrize("form", ["Gemm", "MatMul"])
def test_a_sum_of_kronecker_products_becomes_two_cores(form):
    rng = np.random.default_rng(2)
    weight = sum(np.kron(rng.standard_normal((5, 6)), rng.standard_normal((8, 8))) for _ in range(2))  # [40, 48]
    graph, feeds = case(form)
    layer = next(iter(find_layers(graph)))
    layer.weight.values = weight.T.astype(np.float32)
    original = copy_of(graph)
    changed, report = factor(graph, feeds, error=1e-4, form="tensor-train", cost=0.74)
    assert changed
    assert report.replacements[0].form.startswith("two cores of bond")
    assert report.replacements[0].bytes_after < report.replacements[0].bytes_before / 2
    np.testing.assert_allclose(
        Runner(graph).run(feeds[0])["y"], Runner(original).run(feeds[0])["y"], rtol=1e-3, atol=1e-3
    )


def test_cores_in_the_graph_compute_their_weight_for_odd_sizes():
    rng = np.random.default_rng(2)
    graph = graph_of(
        "g (float[N, T, 15] x) => (float[N, T, 7] y) { m = MatMul(x, w) y = Add(m, b) }",
        w=np.zeros((15, 7), "f"),
        b=np.ones(7, "f"),
    )
    cores = fit_cores(rng.standard_normal((7, 15)), np.eye(15), (1, 7), (3, 5), 2)
    write_cores(graph, next(iter(find_layers(graph))), cores, np.arange(7.0))
    graph.cleanup().toposort()
    x = rng.standard_normal((2, 3, 15)).astype(np.float32)
    np.testing.assert_allclose(
        Runner(graph).run({"x": x})["y"], x @ cores.weight().T.astype(np.float32) + np.arange(7), rtol=1e-4, atol=1e-4
    )


def test_the_most_exact_form_that_the_cost_admits():
    graph, feeds = case("Gemm", rank=20)
    changed, report = factor(graph, feeds, error=10.0, cost=0.5, goal="error")
    assert changed
    assert report.replacements[0].macs_after <= 0.5 * report.replacements[0].macs_before
    assert report.replacements[0].form == "rank 8"  # 16 would take 0.73 of the cost


def test_layers_can_be_chosen_by_name_and_others_are_left_alone():
    graph, feeds = case("Gemm")
    assert not factor(graph, feeds, layers="Gemm_7,elsewhere")[0]
    assert factor(graph, feeds, layers="Gemm_7,Gemm_0")[0]
    grouped = graph_of(
        "g (float[N, 64, 4] x) => (float[N, 64, 4] y) { y = Conv<group = 2>(x, w) }", w=np.ones((64, 32, 1), np.float32)
    )
    assert not factor(grouped, feeds)[0]
    assert ops(grouped) == ["Conv"]


def test_cores_need_to_know_how_many_axes_there_are():
    graph, feeds = case("MatMul")
    graph.inputs[0].shape = None
    changed, report = factor(graph, feeds, form="tensor-train")
    assert not changed
    assert "its channels cannot be split" in report.declined[0].reason


@pytest.mark.parametrize(
    ("form", "kind"), [("MatMul", "svd"), ("MatMul", "tensor-train"), ("Conv of nine taps", "svd")]
)
def test_factors_run_on_the_machine_as_their_integer_onnx_does(form, kind):
    graph, feeds = case(form)
    text = f"normalize,low-rank(error=10.0, cost=0.74, goal=error, form='{kind}'),quantize"
    compiled = qcompiler.compile(gs.export_onnx(graph), data=feeds, options=Options(passes=text), for_onnx=False)
    record = compiled.report.replacements[0]
    assert record.kept
    assert record.milliseconds_after > 0
    oracle, session = Runner(lowering.to_integer_onnx(compiled.integer_graph), fusions=False), compiled.session()
    for feed in feeds[:3]:
        np.testing.assert_array_equal(session.run(feed)["y"], oracle.run(feed)["y"])
    if kind == "svd":
        assert compiled.report.output_sqnr_db["y"] > 25


@pytest.mark.parametrize("options", ["error=0", "cost=1", "form=qr", "goal=speed"])
def test_bad_options_are_refused_in_one_line(options):
    with pytest.raises(qcompiler.errors.OptionError, match="low-rank"):
        Pipeline.parse(f"low-rank({options})")
