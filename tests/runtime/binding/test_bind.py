"""Builder, dimension expressions, binding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qcompiler.runtime.binding.bind import ELEMENT_BY_ELEMENT, bind
from qcompiler.runtime.errors import ProgramError
from qcompiler.runtime.instructions.opcodes import BY_NAME
from qcompiler.runtime.program import expressions as ex
from qcompiler.runtime.program.builder import ProgramBuilder
from qcompiler.runtime.session import Session
from tests.runtime.programs import broadcast_strides


def test_expressions() -> None:
    size = ex.add(["floordiv", ex.add("w", -1), 2], 1)
    assert [ex.evaluate(size, {"w": w}) for w in (1, 2, 5)] == [1, 1, 3]
    assert ex.add(2, 3) == 5
    assert ex.mul("n", 1) == "n"
    assert ex.mul(0, "n") == 0
    assert ex.contiguous([2, "n", 4]) == [["mul", 4, "n"], 4, 1]
    assert broadcast_strides([3, 1], [2, 3, 4]) == [0, 1, 0]
    assert ex.evaluate(["max", 1, ["min", "n", 9]], {"n": 30}) == 9


def test_the_instructions_that_may_meet_an_empty_tensor_exist() -> None:
    assert set(BY_NAME) >= ELEMENT_BY_ELEMENT


def test_expressions_that_have_no_value() -> None:
    with pytest.raises(ProgramError, match="divisors must be positive"):
        ex.evaluate(["floordiv", 3, ["add", "n", -1]], {"n": 1})
    with pytest.raises(ProgramError, match=r"beyond 2\^62"):
        ex.evaluate(["mul", "n", "n", "n"], {"n": 1 << 30})
    deep: Any = "n"
    for _ in range(70):
        deep = ["add", deep, 1]
    for bad in (deep, ["pow", 2, 3], ["add", 1], [], [3, 4, 5], True, 1.5, None, "unknown"):
        with pytest.raises(ProgramError):
            ex.check_form(bad, ["n"])


def emit(opcode: str = "move", **changes: Any) -> ProgramBuilder:
    b = ProgramBuilder()
    x, y = b.buffer((4,), np.uint8), b.buffer((4,), np.uint8)
    b.input("x", x, np.uint8, (4,))
    b.emit(opcode, node="Node_7", **{"x": x, "y": y, "dims": [4], "x_strides": [1], "y_strides": [1], **changes})
    b.output("y", y, np.uint8, (4,))
    return b


@pytest.mark.parametrize(("change", "message"), [
    ({"opcode": "jump"}, "Node_7: no opcode 'jump'"),
    ({"color": 3}, "has no field 'color'"),
    ({"x": None}, "needs the operand 'x'"),
    ({"x": np.zeros(4, np.float32)}, "no type float32"),
    ({"dims": [1] * 7}, "dims has 7 entries; move takes at most 6"),
    ({"dims": ["m"]}, "'m' is not declared"),
    ({"dims": [-1]}, "d5 of move is -1"),
])
def test_the_builder_names_the_node_and_the_field(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        emit(**change)


@pytest.mark.parametrize(("change", "message"), [
    ({"dims": [5]}, "would read bytes 0 to 5 of x, which has 4"),
    ({"x_offset": 1}, "would read bytes 1 to 5 of x"),
    ({"x_offset": -1}, "would read bytes -1 to 3 of x"),
    ({"y_strides": [2]}, "would write bytes 0 to 7 of y"),
    ({"x_strides": [-1]}, "would read bytes -3 to 1 of x"),
    ({"dims": [1 << 30, 1 << 30, 4], "x_strides": [0, 0, 1], "y_strides": [0, 0, 1]}, r"more than 2\^40 elements"),
])
def test_binding_proves_every_access(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ProgramError, match=rf"^instruction 0 \(Node_7\): .*{message}"):
        Session(emit(**change).program())


def test_a_buffer_must_be_written_before_it_is_read() -> None:
    b = ProgramBuilder()
    x, y = b.buffer((4,), np.uint8), b.buffer((4,), np.uint8)
    b.emit("move", node="first", x=x, y=y, dims=[4], x_strides=[1], y_strides=[1])
    b.output("y", y, np.uint8, (4,))
    with pytest.raises(ProgramError, match=r"\(first\): reads b0 before anything has written it"):
        bind(b.program())


def test_shifts_of_constants_are_checked() -> None:
    b = ProgramBuilder()
    x, y = b.buffer((1, 2), np.uint8), b.buffer((1, 2), np.uint8)
    b.input("x", x, np.uint8, (1, 2))
    b.emit(
        "gemm", node="fc", x=x, w=np.eye(2, dtype=np.int8), bias=[0, 0], m=[1, 1], n=[1, 63], y=y, rows=1, k=2, cols=2
    )
    b.output("y", y, np.uint8, (1, 2))
    with pytest.raises(ProgramError, match=r"\(fc\): the constant n holds values from 1 to 63; admitted is 1 to 62"):
        bind(b.program())


def test_equal_constants_are_stored_once_and_conversions_are_exact() -> None:
    b = ProgramBuilder()
    first, second = b.constant(np.arange(5)), b.constant(np.arange(5))
    assert first is second
    assert b.constant(np.arange(5), np.int32) is not first
    with pytest.raises(ProgramError, match="does not fit into int8"):
        b.constant(np.array([200]), np.int8)


def test_the_text_of_a_program() -> None:
    b = ProgramBuilder()
    n = b.dim("n")
    x, y = b.buffer((n, 4), np.uint8, "x"), b.buffer((n, 4), np.int16, "y")
    b.input("x", x, np.float32, (n, 4), scale=0.5, zero_point=3)
    b.emit("requant", node="Cast_1", x=x, y=y, count=["mul", n, 4], x_zp=3, m=2, n=1)
    b.output("y", y, np.float32, (n, 4), scale=0.25)
    assert b.program().disassemble().splitlines() == [
        "dims n",
        ("input x: float32['n', 4] in b0, scale 0.5 zero point 3"),
        "output y: float32['n', 4] in b1, scale 0.25 zero point 0",
        "b0: uint8['n', 4] x",
        "b1: int16['n', 4] y",
        "   0 requant x=b0 x_type=0 y=b1 y_type=2 count=[mul,n,4] x_zp=3 m=2 n=1 lo=-32768 hi=32767  # Cast_1",
    ]
