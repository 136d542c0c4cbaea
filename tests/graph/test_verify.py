from __future__ import annotations

import numpy as np
import pytest

from qcompiler.errors import VerifyError
from qcompiler.graph import verify
from qcompiler.graph.ir import (
    INTEGER_DOMAIN,
    Constant,
    Graph,
    Node,
    QuantSpec,
    Stage,
    Variable,
    dequantize_constant,
    insert_qdq,
    names_in,
)
from tests.helpers.graphs import graph_of

GEMM = "g (float[2, 4] x) => (float[2, 3] y) { y = MatMul(x, w) }"
WEIGHT = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)


def quantized(*, activation: bool, weight: bool) -> Graph:
    graph = graph_of(GEMM, w=WEIGHT)
    taken, layer = names_in(graph), graph.nodes[0]
    if activation:
        insert_qdq(graph, graph.inputs[0], QuantSpec.per_tensor(0.1, 128, np.uint8), taken)
    if weight:
        spec = QuantSpec(np.full(3, 0.01, np.float32), np.zeros(3, np.int8), np.dtype(np.int8), 1)
        layer.inputs[1] = dequantize_constant(graph, "w", spec.quantize(WEIGHT), spec, taken)
    return graph.cleanup().toposort()


def test_sound_graphs_pass() -> None:
    verify.check(graph_of(GEMM, w=WEIGHT), Stage.FLOAT)
    verify.check(quantized(activation=True, weight=True), Stage.QUANTIZED)
    verify.check(quantized(activation=False, weight=False), Stage.QUANTIZED)


@pytest.mark.parametrize(("activation", "weight"), [(True, False), (False, True)])
def test_a_half_quantized_layer_is_refused(activation: bool, weight: bool) -> None:
    with pytest.raises(VerifyError, match=r"node 'MatMul_0' \(MatMul\).*comes without Q/DQ"):
        verify.check(quantized(activation=activation, weight=weight), Stage.QUANTIZED)


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf])
def test_a_scale_must_be_finite_and_positive(scale: float) -> None:
    graph = quantized(activation=True, weight=True)
    node = next(node for node in graph.nodes if node.op == "QuantizeLinear")
    node.inputs[1] = Constant("bad", np.array(scale, np.float32))
    with pytest.raises(VerifyError, match="scale must be finite and positive"):
        verify.check(graph, Stage.QUANTIZED)


def test_zero_point_and_codes_are_of_one_type() -> None:
    graph = quantized(activation=True, weight=True)
    node = next(node for node in graph.nodes if node.op == "DequantizeLinear" and node.inputs[0].dtype == np.uint8)
    node.inputs[2] = Constant("bad", np.zeros((), np.int8))
    with pytest.raises(VerifyError, match="zero point is int8, its codes are uint8"):
        verify.check(graph, Stage.QUANTIZED)


def test_a_tensor_is_written_once_and_before_it_is_read() -> None:
    graph = graph_of("g (float[2] x) => (float[2] y) { h = Relu(x)  y = Neg(h) }")
    graph.nodes.reverse()
    with pytest.raises(VerifyError, match=r"'Neg_1'.*reads 'h' before it is written"):
        verify.check(graph, Stage.FLOAT)
    graph.nodes.reverse()
    graph.nodes.append(Node("Abs", "again", inputs=[graph.inputs[0]], outputs=[Variable("h", np.float32)]))
    with pytest.raises(VerifyError, match="'h' is written twice"):
        verify.check(graph, Stage.FLOAT)


def test_an_output_needs_a_producer() -> None:
    graph = graph_of(GEMM, w=WEIGHT)
    graph.outputs.append(Variable("phantom", np.float32))
    with pytest.raises(VerifyError, match=r"output 'phantom'.*nothing writes it"):
        verify.check(graph, Stage.FLOAT)


def test_integer_operators_belong_to_the_integer_stage_alone() -> None:
    graph = graph_of(GEMM, w=WEIGHT)
    with pytest.raises(VerifyError, match="is not an integer operator"):
        verify.check(graph, Stage.INTEGER)
    graph.nodes[0].domain = INTEGER_DOMAIN
    with pytest.raises(VerifyError, match="only occur after 'lower'"):
        verify.check(graph, Stage.FLOAT)
    with pytest.raises(VerifyError, match="'w' is a float tensor inside the integer graph"):
        verify.check(graph, Stage.INTEGER)


def test_a_convolution_by_data_may_read_codes_beside_floats() -> None:
    graph = graph_of("g (float[1, 3, 6, 6] x, float[4, 3, 3, 3] w) => (float[1, 4, 4, 4] y) { y = Conv(x, w) }")
    insert_qdq(graph, graph.inputs[1], QuantSpec.per_tensor(0.1, 128, np.uint8), names_in(graph))
    verify.check(graph.toposort(), Stage.QUANTIZED)
