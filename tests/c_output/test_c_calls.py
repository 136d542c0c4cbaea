"""What an instruction says reaches its kernel in C."""

from __future__ import annotations

import pytest

from qcompiler.c_output.c_calls import KERNELS
from qcompiler.c_output.fragments import definitions, fields_of
from qcompiler.runtime.instructions.instruction import Kind
from qcompiler.runtime.instructions.opcodes import BY_NAME, OPCODES

IN_THE_NAME = {"kind", "acc64", "has_lengths"}
"""Numbers that choose a kernel, or whether an operand is there."""

IN_THE_BIAS = ("lstm", "gru")
"""Opcodes whose kernels do not read the zero point of x, since it is in the bias."""


def test_every_opcode_has_a_kernel() -> None:
    assert set(KERNELS) == set(BY_NAME)


@pytest.mark.parametrize("opcode", [opcode.name for opcode in OPCODES])
def test_every_number_is_a_member_of_what_the_kernel_takes(opcode: str) -> None:
    numbers = {field.name for field in BY_NAME[opcode].fields if field.kind is Kind.NUMBER}
    members = set()
    for name, length in fields_of(f"{opcode}_fields"):
        members |= {f"{name}{i}" for i in range(length)} or {name}
    assert members <= numbers
    assert numbers - members <= IN_THE_NAME | ({"x_zp"} if opcode in IN_THE_BIAS else set())


@pytest.mark.parametrize("opcode", [opcode.name for opcode in OPCODES])
def test_the_kernel_of_a_name_exists_and_takes_the_operands_in_their_order(opcode: str) -> None:
    kinds = {"matmul": "sum32", "binary": "add", "compare": "less_equal", "logic": "xor", "reduce": "max"}
    operands = [field for field in BY_NAME[opcode].fields if field.kind.is_operand]
    types = {field.name: "i32" if field.name in ("indices", "lengths") else "i16" for field in operands}
    name = KERNELS[opcode].format(kind=kinds.get(opcode, "bool"), **types)
    text = definitions(f"{name}();")[name]
    named = [part.split()[-1].lstrip("*") for part in text[text.index("(") + 1 : text.index(")")].split(",")]
    expected = ["f", *(field.name.removeprefix("table_") if opcode == "softmax" else field.name for field in operands)]
    assert named[: len(expected)] == expected
    assert named[len(expected) :] == {"gru": ["reset"], "topk": ["memory"]}.get(opcode, [])
