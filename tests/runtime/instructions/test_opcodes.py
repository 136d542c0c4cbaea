"""Random instructions of every opcode: what the loader lets through stays inside what it declared.

This is the test of the claim that no file can make the machine leave its buffers.
"""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.runtime.binding.bind import bind
from qcompiler.runtime.errors import MachineError
from qcompiler.runtime.instructions.instruction import ELEMENT_DTYPE, Element, Field, Kind, Opcode
from qcompiler.runtime.instructions.opcodes import OPCODES
from qcompiler.runtime.program import coded_constants
from qcompiler.runtime.program.builder import ProgramBuilder
from qcompiler.runtime.session import Session
from qcompiler.runtime.vector.sum_tiles import Isa, best_isa
from tests.runtime.checked import AccessError, run_interpreted

BYTES = 256
MOST_WORK = 1200
BIG_TABLES = {"table": 65536, "table_f": 65536, "table_g": 65536, "table_h": 65536}
SMALL = st.integers(0, 4)


def number(draw: Any, field: Field) -> int:
    """Mostly small values, so that many instructions are sound; now and then an extreme one."""
    value = draw(
        st.one_of(
            SMALL,
            SMALL,
            SMALL,
            SMALL,
            st.sampled_from([-1, 5, 7, 16, 17, 33, 48]),
            st.sampled_from([field.low, field.high]),
        )
    )
    return min(max(value, field.low), field.high)


def operand(draw: Any, b: ProgramBuilder, field: Field, rng: np.random.Generator) -> Any:
    element = draw(st.sampled_from(field.types))
    dtype = np.dtype(ELEMENT_DTYPE[element])
    count = BIG_TABLES.get(field.name, BYTES // dtype.itemsize)
    if field.kind is Kind.CONSTANT or (field.kind is Kind.READ and draw(st.booleans())):
        # 9: stored in codes
        most = (
            2 if element is Element.BOOL or field.name.endswith(("_low", "_high")) else draw(st.sampled_from([40, 9]))
        )
        return b.constant(rng.integers(0, most, count).astype(dtype) + (field.name in ("n", "n_w", "n_r")))
    buffer = b.buffer((count,), dtype, field.name)
    b.input(field.name, buffer, dtype, (count,))
    return buffer


def random_program(draw: Any, opcode: Opcode) -> tuple[Any, dict[str, Any]]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    b = ProgramBuilder()
    operands = {f.name: operand(draw, b, f, rng) for f in opcode.fields if f.kind.is_operand}
    numbers = {f.name: number(draw, f) for f in opcode.fields if f.kind is Kind.NUMBER}
    b.emit(opcode.name, node="random", **operands, **numbers)
    for f in opcode.fields:
        if f.kind is Kind.WRITE:
            b.output(f"{f.name}_out", operands[f.name], ELEMENT_DTYPE[operands[f.name].element], operands[f.name].shape)
    program = b.program()
    feeds = {}
    for port in program.inputs:
        shape = tuple(int(size) for size in port.shape if isinstance(size, int))
        feeds[port.name] = rng.integers(0, 2 if port.dtype == "bool" else 120, shape).astype(port.dtype)
    return program, feeds


def work(opcode: Opcode, values: dict[str, int]) -> int:
    """A rough number of inner steps, to keep the interpreted run short."""
    names = (
        "batch",
        "out_h",
        "out_w",
        "out_c",
        "in_c",
        "kernel_h",
        "kernel_w",
        "rows",
        "cols",
        "k",
        "outer",
        "inner",
        "count",
        "steps",
        "hidden",
    )
    total = 1
    for name in [*names, *(f"d{i}" for i in range(6)), *(f"b{i}" for i in range(4))]:
        total *= max(values.get(name, 1), 1) if opcode.name != "matmul" or name != "b" else 1
    return total


@pytest.mark.parametrize("opcode", OPCODES, ids=lambda o: o.name)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_what_the_loader_admits_stays_inside_its_buffers(opcode: Opcode, data: Any) -> None:
    with mock.patch.object(coded_constants, "SMALLEST", 1):
        program, feeds = random_program(data.draw, opcode)
    try:
        bound = bind(program)
    except MachineError as error:
        if "\n" in str(error):
            pytest.fail(f"several lines: {error}")
        return
    if work(opcode, opcode.row(bound.code[0].tolist())) > MOST_WORK:
        return
    for isa in {Isa.PLAIN, best_isa()}:
        try:
            run_interpreted(program, feeds, isa)
        except MachineError:  # an index out of range
            assert opcode.name in ("gather", "scatter")
        except (AccessError, OverflowError) as error:
            if isinstance(error, AccessError):
                raise
            return  # numbers that no lowering would write; 64 bits wrap, memory is safe
        Session(program, isa)
