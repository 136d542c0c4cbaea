"""A weight that several layers share stays one weight: in the file, in the program, and as a problem."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from qcompiler.api import Options, compile
from qcompiler.graph.ir import Constant
from tests.lowering.judged import compiled

WIDTH, READERS = 48, 4


def model(*, biased: bool) -> onnx.ModelProto:
    """One weight and, where ``biased``, a bias for each of its layers."""
    rng, lines, tensor = np.random.default_rng(3), [], "x"
    arrays = {"w": rng.standard_normal((WIDTH, WIDTH)) * 0.2}
    for index in range(READERS):
        lines.append(f"m{index} = Gemm({tensor}, w{f', b{index}' if biased else ''}) r{index} = Relu(m{index})")
        tensor = f"r{index}"
        if biased:
            arrays[f"b{index}"] = rng.standard_normal(WIDTH) * 0.1
    text = f"g (float[N, {WIDTH}] x) => (float[N, {WIDTH}] {tensor}) {{ {' '.join(lines)} }}"
    result = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}')
    result.graph.initializer.extend(
        onnx.numpy_helper.from_array(values.astype(np.float32), name) for name, values in arrays.items()
    )
    return result


def feeds(count: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(4)
    return [{"x": rng.uniform(-1, 1, (6, WIDTH)).astype(np.float32)} for _ in range(count)]


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_it_is_stored_once(weights: str, biased: bool) -> None:
    given = feeds(24)
    result = compile(model(biased=biased), data=given, options=Options(2, weights=weights), for_onnx=False)
    matrices = {id(node.inputs[1]) for node in result.integer_graph.nodes if node.op == "Gemm"}
    assert len(matrices) == 1
    constants = {id(t): t.values.size for node in result.graph.nodes for t in node.inputs if isinstance(t, Constant)}
    assert list(constants.values()).count(WIDTH * WIDTH) == 1
    assert min(result.report.output_sqnr_db.values()) > (25 if weights == "int8" else 8)


def test_it_is_as_good_as_rounding() -> None:
    given = feeds(32)
    plain, _ = compiled(model(biased=True), given[:24], given[24:], "machine", level=0)
    solved, _ = compiled(model(biased=True), given[:24], given[24:], "machine", level=2)
    assert solved > plain - 0.5
