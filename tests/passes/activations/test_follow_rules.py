"""Rules for single nodes."""

from __future__ import annotations

import numpy as np
import pytest

import qcompiler
from qcompiler.errors import OptionError
from qcompiler.graph.ir import read_spec
from qcompiler.graph.layers import find_layers
from qcompiler.graph.runner import Runner
from qcompiler.layer_rules import LayerRule
from qcompiler.options import Options
from qcompiler.presets import pipeline_for
from tests.helpers.page_models import FEEDS, small_model


def compiled(*rules: LayerRule, level: int = 1, **more: object) -> qcompiler.Compiled:
    return qcompiler.compile(small_model(), data=FEEDS, options=Options(level, rules=rules, **more))


def node_of(graph, op):
    return next(node for node in graph.nodes if node.op == op)


def reads_codes(node) -> bool:
    return any(tensor.inputs and tensor.inputs[0].op == "DequantizeLinear" for tensor in node.inputs)


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("op", ["Conv", "Gemm", "Add"])
def test_a_skipped_operator_stays_float_and_the_others_do_not(op, level):
    result = compiled(LayerRule(op=op, skip=True), level=level)
    skipped = [node for node in result.graph.nodes if node.op == op]
    assert skipped
    assert not any(map(reads_codes, skipped))
    assert {each.node for each in result.report.left_float if "rule" in each.reason} == {node.name for node in skipped}
    for layer in find_layers(result.graph):
        if layer.node.op != op:
            assert reads_codes(layer.node)
            assert layer.values.dtype == np.int8
    if op != "Add":
        assert result.report.figures["integer_mac_share"] < 1


def test_an_integer_result_refuses_to_skip():
    options = Options(rules=(LayerRule(op="Conv", skip=True),))
    assert "follow-rules" in str(pipeline_for(options, for_onnx=True))
    with pytest.raises(OptionError, match=r"--rule op=Conv,skip: integer results compute nothing in float"):
        pipeline_for(options, for_onnx=False)


def test_everything_skipped_is_the_float_model():
    result = compiled(LayerRule(skip=True))
    wanted = Runner(result.float_graph).run(FEEDS[0])["scores"]
    np.testing.assert_allclose(Runner(result.graph).run(FEEDS[0])["scores"], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_layer_has_the_grid_of_its_rule_and_the_others_theirs(level):
    result = compiled(LayerRule(op="Gemm", grid="int2"), LayerRule("Conv_d", grid="kmeans3"), level=level)
    levels = {layer.node.name: len(np.unique(layer.values)) for layer in find_layers(result.graph)}
    assert levels["Gemm_scores"] <= 3
    assert levels["Conv_d"] <= 8
    assert levels["Conv_c"] > 16


def test_the_later_of_two_grids_counts():
    result = compiled(LayerRule(grid="int2"), LayerRule(op="Gemm", grid="int4"))
    levels = {layer.node.name: len(np.unique(layer.values)) for layer in find_layers(result.graph)}
    assert 3 < levels["Gemm_scores"] <= 15
    assert levels["Conv_c"] <= 3


def test_what_a_node_reads_has_sixteen_bits():
    plain, wide = compiled(widen="off"), compiled(LayerRule(op="Gemm", int16=True), widen="off")
    kinds = [
        read_spec(node_of(each.graph, "Gemm").inputs[0].inputs[0]).dtype for each in (plain, wide)
    ]  # fmt: skip
    assert kinds == [np.uint8, np.int16]
    assert read_spec(node_of(wide.graph, "Conv").inputs[0].inputs[0]).dtype == np.uint8
    got, wanted = wide.session().run(dict(FEEDS[0]))["scores"], Runner(wide.graph).run(FEEDS[0])["scores"]
    assert np.square(got - wanted).sum() < 1e-3 * np.square(wanted).sum()


@pytest.mark.parametrize(
    ("rule", "part"),
    [
        (LayerRule("nothing*", skip=True), "matches no node"),
        (LayerRule(op="Relu", grid="int4"), "matches no layer with stored weights"),
    ],
)
def test_a_rule_that_cannot_be_followed_is_refused(rule, part):
    with pytest.raises(OptionError, match=part):
        compiled(rule)
