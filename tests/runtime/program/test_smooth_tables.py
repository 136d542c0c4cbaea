"""Tables of 16-bit functions, which programs store as differences of few values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.runtime.errors import ProgramError
from qcompiler.runtime.program.builder import ProgramBuilder
from qcompiler.runtime.program.coded_constants import SMALLEST, encoded, restored
from qcompiler.runtime.program.model import Program
from qcompiler.runtime.session import Session
from qcompiler.runtime.vector.sum_tiles import Isa
from tests.runtime.checked import run_interpreted
from tests.runtime.program.test_file import forge

SEEDS = st.integers(0, 2**32 - 1)
CODES = np.arange(-32768, 32768)
SMOOTH = {
    "sigmoid": 1 / (1 + np.exp(-CODES / 2048)), "tanh": np.tanh(CODES / 2048), "exp": np.exp(CODES / 32768 - 1),
    "square": (CODES / 32768) ** 2, "sine, over the whole range": np.sin(CODES / 9000),
}  # fmt: skip


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_tables_are_stored_as_differences(name: str) -> None:
    array = np.round(SMOOTH[name] * 32767).astype(np.int16)
    assert len(np.unique(array)) > 1000
    found = encoded(array)
    assert found is not None
    assert found.coding.order in (1, 2)
    raw = np.frombuffer(found.stored(), np.uint8)
    assert raw.size == found.nbytes < array.nbytes / 3.9
    again = restored(raw, found.coding, array.shape, "int16")
    np.testing.assert_array_equal(again.values(), array)
    assert again.values().dtype == array.dtype


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, order=st.integers(1, 2), count=st.integers(1, 16), size=st.integers(SMALLEST, 3 * SMALLEST))
def test_differences_give_back_the_values_and_sums_go_around(seed: int, order: int, count: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    array = rng.choice(rng.integers(-32768, 32768, count), size).astype(np.int16)
    for _ in range(order):
        array = np.cumsum(array, dtype=np.int16)
    found = encoded(array)
    assert found is not None
    raw = np.frombuffer(found.stored(), np.uint8)
    np.testing.assert_array_equal(restored(raw, found.coding, array.shape, "int16").values(), array)


def looked_up(table: Any) -> Program:
    """x int16 [5] -> its entry of a table of 65,536 int16."""
    b = ProgramBuilder()
    x, y = b.buffer((5,), np.int16), b.buffer((5,), np.int16)
    b.input("x", x, np.int16, (5,))
    b.emit("table", x=x, table=b.constant(table), y=y, count=5)
    b.output("y", y, np.int16, (5,))
    return b.program()


def test_a_program_with_differences_reads_them_and_says_so(tmp_path: Path) -> None:
    table, path = np.round(SMOOTH["tanh"] * 32767).astype(np.int16), tmp_path / "net.qprog"
    program, x = looked_up(table), np.array([-32768, -900, 0, 77, 32767], np.int16)
    program.save(path)
    assert path.stat().st_size < 40_000
    assert b'"version":"6"' in path.read_bytes()
    for isa in (isa for isa in Isa if isa.supported):
        np.testing.assert_array_equal(Session(path, isa).raw({"x": x})["y"], table[x.astype(int) + 32768])
        np.testing.assert_array_equal(run_interpreted(program, {"x": x}, isa)["y"], table[x.astype(int) + 32768])


@pytest.mark.parametrize("change", [
    lambda item: item.__setitem__(6, 3), lambda item: item.__setitem__(6, -1), lambda item: item.__setitem__(5, 32),
    lambda item: item.__setitem__(4, 2), lambda item: item.__setitem__(0, "int8"), lambda item: item.append(0),
    lambda item: item.__setitem__(1, [256, 256]),
])  # fmt: skip
def test_forged_differences_name_what_is_wrong(change: Any, tmp_path: Path) -> None:
    path = tmp_path / "net.qprog"
    looked_up(np.round(SMOOTH["tanh"] * 32767).astype(np.int16)).save(path)
    forge(path, lambda parts, text: change(text["constants"][0]))
    with pytest.raises(ProgramError, match="described wrongly"):
        Session(path)
