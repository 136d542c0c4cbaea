"""What is known of the nodes of a compiled network."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import qcompiler
from qcompiler.api import worst_layers
from qcompiler.graph.ir import Stage
from qcompiler.graph.layers import find_layers
from qcompiler.options import Options
from qcompiler.page.grid_history import GridHistory
from qcompiler.page.network import look_at
from tests.helpers.page_models import FEEDS, small_model


def view(options, *, timed=False):
    history = GridHistory()
    compiled = qcompiler.compile(
        small_model(), data=FEEDS, options=options,
        on_pass=lambda step, graph, changed: history.look(step.name, graph) if changed else None,
    )  # fmt: skip
    worst_layers(compiled)
    times = None
    if timed:
        times = {}
        for _, node, spent in compiled.session().profile(dict(FEEDS[0]), 1):
            times[node] = times.get(node, 0) + spent
    return compiled, look_at(compiled.graph, compiled.feeds, compiled.report, history, times)


def test_every_layer_has_its_error_its_bytes_and_its_reason():
    compiled, network = view(Options(2))
    assert compiled.stage == Stage.QUANTIZED
    layers = {layer.node.name: layer for layer in find_layers(compiled.graph)}
    shown = {node.name: node for node in network.nodes if node.is_layer}
    assert shown.keys() == layers.keys() != set()
    errors = {each.node: each.sqnr_db for each in compiled.report.layers}
    for name, node in shown.items():
        assert node.sqnr_db == errors[name]
        assert node.weight_bytes == layers[name].values.size
        assert sum(node.codes.counts) == layers[name].values.size
        assert "quantize-weights" in node.why[-1]
        assert node.macs > 0
    assert sum(node.macs for node in network.nodes) == compiled.report.figures["macs"]


def test_no_pair_is_shown_and_edges_go_through_them():
    _, network = view(Options(0))
    assert {"QuantizeLinear", "DequantizeLinear"} & {node.op for node in network.nodes} == set()
    named = [(network.nodes[one].op, network.nodes[other].op) for one, other in network.edges]
    assert ("input", "Conv") in named
    assert ("Gemm", "output") in named
    assert all(network.nodes[one].y < network.nodes[other].y for one, other in network.edges)


def test_the_grid_of_a_fused_layer_is_that_of_the_end_of_its_chain():
    _, network = view(Options(1, widen="off"))
    conv = next(node for node in network.nodes if node.op == "Conv")
    relu = network.nodes[conv.end]
    assert (conv.grid, relu.op, relu.grid.kind, conv.bits, relu.bits) == (None, "Relu", "uint8", 8, 8)
    assert relu.histogram.least >= 0
    assert "quantize-activations" in relu.why[0]


@pytest.mark.parametrize(("weights", "bits"), [("int4", 4), ("kmeans3", 3)])
def test_few_bits_are_told(weights, bits):
    compiled, network = view(Options(1, weights=weights))
    for node in network.nodes:
        if node.is_layer:
            assert (node.weight_grid, node.weight_bits) == (weights, bits)
            assert any("reconstruct-layers" in line for line in node.why)
            assert len(node.codes.levels) <= 2**bits
    assert compiled.report.reconstructions


def test_sixteen_bits_are_sixteen():
    _, network = view(Options(1, activations="int16"))
    assert {node.bits for node in network.nodes if node.grid is not None} == {16}


def test_what_stays_float_says_why():
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 2, 2] x) => (float[N] y) { a = Exp(x) y = Det(a) }'
    feeds = [{"x": np.random.default_rng(0).normal(size=(6, 2, 2)).astype(np.float32)}]
    compiled = qcompiler.compile(onnx.parser.parse_model(text), data=feeds, options=Options(0))
    nodes = look_at(compiled.graph, feeds, compiled.report, GridHistory()).nodes
    node = next(node for node in nodes if node.op == "Det")
    assert node.left_float == "no integer form of this operator"
    assert node.bits == 32


def test_times_of_the_machine_belong_to_the_layers():
    _, network = view(Options(1), timed=True)
    spent = {node.op: node.nanoseconds for node in network.nodes if node.nanoseconds}
    assert spent.keys() >= {"Conv", "Gemm"}
    assert np.all(np.array(list(spent.values())) > 0)
