"""The table of operators against the definitions of ONNX and against what the compiler does with each."""

from __future__ import annotations

import onnx
import pytest

from qcompiler.graph.operators import OPERATORS
from qcompiler.lowering.rules.integers import INTEGER_RULES
from qcompiler.lowering.rules.table import RULES
from qcompiler.shapes.rules import RULES as SHAPE_RULES


@pytest.mark.parametrize("name", [name for name in OPERATORS if onnx.defs.has(name)])
def test_the_positions_of_codes_are_inputs_of_the_operator(name: str) -> None:
    most = onnx.defs.get_schema(name).max_input
    assert all(position < most for position in OPERATORS[name].codes or ())


def test_every_operator_is_one_of_onnx() -> None:
    assert [name for name in OPERATORS if not onnx.defs.has(name)] == []


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_is_lowered_and_has_a_shape(name: str) -> None:
    assert name in RULES or name in INTEGER_RULES
    assert name in SHAPE_RULES


@pytest.mark.parametrize("name", [name for name, operator in OPERATORS.items() if operator.rearranges])
def test_what_rearranges_keeps_the_type_of_its_elements(name: str) -> None:
    schema = onnx.defs.get_schema(name)
    assert schema.outputs[0].type_str == schema.inputs[0].type_str
    assert OPERATORS[name].shares_grid
