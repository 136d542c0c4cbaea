"""The border in C against the machine's, with floats: every type, columns on grids of their own, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qcompiler.runtime.program.builder import ProgramBuilder
from qcompiler.runtime.program.contents import Labels
from qcompiler.runtime.program.model import Program
from qcompiler.runtime.session import Session
from tests.c_output.compiled import CaseInC, check_in_c, needs_compiler

NOT_FINITE, INDEX_OUT_OF_RANGE, OTHER_NUMBER = 1, 2, 3
COUNT = 3000


def identity(dtype: str, code: Any, shape: tuple[int, ...] = (COUNT,), **grid: Any) -> Program:
    """A program without instructions: what enters leaves again."""
    b = ProgramBuilder()
    x = b.buffer(shape, code)
    fills = grid.pop("fills", (None, None))
    b.input("x", x, dtype, shape, **grid)
    b.output("y", x, dtype, shape, fills=fills, **grid)
    return b.program()


def numbers(dtype: str, scale: float, seed: int) -> Any:
    """Halves of a scale, numbers of every size, the largest and the least ones."""
    rng = np.random.default_rng(seed)
    halves = (rng.integers(-300, 300, COUNT) + 0.5) * np.float32(scale)
    spread = rng.normal(size=COUNT) * 10.0 ** rng.integers(-8, 4, COUNT)
    x = np.where(rng.random(COUNT) < 0.5, halves, spread).astype(dtype)
    if dtype != "float16":
        x[:4] = np.finfo(dtype).max, np.finfo(dtype).min, np.finfo(dtype).tiny, 0
    x[~np.isfinite(x)] = 0
    return x


def case(program: Program, x: Any, what: str) -> CaseInC:
    """What the machine makes of one input."""
    with np.errstate(over="ignore"):
        return CaseInC(program, {"x": x}, Session(program).run({"x": x}), what, as_codes=False)


@needs_compiler
def test_every_type_is_quantized_and_dequantized_as_by_the_machine() -> None:
    cases = []
    for seed, dtype in enumerate(["float16", "float32", "float64"]):
        for code in (np.uint8, np.int8, np.int16):
            scale = float(np.float32(10.0 ** np.random.default_rng(seed).uniform(-6, 1)))
            zero_point = 0 if code is np.int16 else 7
            # C has no float16: its results are the float32 before they are rounded
            program = identity(dtype, code, scale=scale, zero_point=zero_point)
            wide = identity("float64" if dtype == "float64" else "float32", code, scale=scale, zero_point=zero_point)
            x = numbers(dtype, scale, seed)
            expected = case(wide, x.astype(np.promote_types(dtype, np.float32)), f"{dtype} {code}")
            cases.append(expected._replace(program=program))
    check_in_c(cases)


@needs_compiler
def test_columns_on_grids_of_their_own() -> None:
    grid = {"scale": (0.5, 0.25, 0.25, 3.0), "zero_point": (0, 9, 9, 128), "axis": 1}
    x = np.random.default_rng(0).normal(0, 20, (3, 4, 5)).astype(np.float32)
    check_in_c([case(identity("float32", np.uint8, x.shape, **grid), x, "columns")])


@needs_compiler
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_ends_of_the_codes_that_stand_for_other_numbers(dtype: str) -> None:
    x = np.linspace(-200, 200, COUNT).astype(dtype)
    fills = ((-np.inf, None), (None, 3.4e38), (-1e9, np.inf))
    check_in_c([case(identity(dtype, np.int16, scale=0.005, fills=each), x, f"{each}") for each in fills])


@needs_compiler
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_nan_or_infinity_enters(dtype: str) -> None:
    cases, program = [], identity(dtype, np.uint8, scale=0.5)
    for place, bad in ((0, np.nan), (7, np.inf), (COUNT - 1, -np.inf)):
        x = np.ones(COUNT, dtype)
        x[place] = bad
        cases.append(CaseInC(program, {"x": x}, {}, f"{bad}", status=NOT_FINITE, as_codes=False))
    check_in_c(cases)


@needs_compiler
def test_an_index_out_of_range_and_another_number_stop_the_run() -> None:
    b = ProgramBuilder()
    x, i, y = b.buffer((4,), np.uint8), b.buffer((2,), np.int64), b.buffer((2,), np.uint8)
    b.input("x", x, np.uint8, (4,))
    b.input("i", i, np.int64, (2,), only=3)
    b.emit("gather", node="pick", x=x, indices=i, y=y, outer=1, axis=4, inner=1, count=2)
    b.output("y", y, np.uint8, (2,))
    restricted = b.program()
    free = Program(**{**vars(restricted), "inputs": tuple(port._replace(only=None) for port in restricted.inputs)})
    codes = np.arange(4, dtype=np.uint8)

    def taken(program: Program, indices: list[int], status: int) -> list[CaseInC]:
        feeds = {"x": codes, "i": np.array(indices, np.int64)}
        expected = {} if status else {"y": codes[indices]}
        return [CaseInC(program, feeds, expected, f"{indices}", status, as_codes) for as_codes in (False, True)]

    check_in_c(
        [
            *taken(restricted, [3, 3], 0),
            *taken(restricted, [3, 2], OTHER_NUMBER),
            *taken(free, [1, -4], 0),
            *taken(free, [1, 4], INDEX_OUT_OF_RANGE),
            *taken(free, [-(1 << 63), 0], INDEX_OUT_OF_RANGE),
        ]
    )


@needs_compiler
@pytest.mark.parametrize("smallest", [0, 1])
def test_what_is_chosen_and_put_back(smallest: int) -> None:
    b, rng = ProgramBuilder(), np.random.default_rng(smallest)
    x, y, order, back = b.buffer((2, 9, 2), np.int16), *(b.buffer((n,), np.int64) for n in (20, 9, 9))
    line, counts = b.buffer((9,), np.int16), b.buffer((9,), np.int64)
    b.input("x", x, np.int16, (2, 9, 2))
    b.input("line", line, np.int16, (9,))
    b.input("counts", counts, np.int64, (9,))
    b.emit("topk", node="best", x=x, y=y, outer=2, k=9, inner=2, count=5, smallest=smallest)
    b.emit("topk", node="sort", x=line, y=order, outer=1, k=9, count=9, smallest=smallest)
    b.emit("scatter", node="inverse", x=counts, indices=order, updates=counts, y=back, axis=9, count=9)
    b.output("y", y, np.int64, (2, 5, 2))
    b.output("back", back, np.int64, (9,))
    feeds = {"x": rng.integers(-3, 3, (2, 9, 2)).astype(np.int16), "line": rng.integers(-3, 3, 9).astype(np.int16)}
    sign = 1 if smallest else -1
    ranked = np.argsort(sign * feeds["x"], axis=1, kind="stable")[:, :5]
    inverse = np.argsort(np.argsort(sign * feeds["line"], kind="stable"), kind="stable")
    expected = {"y": ranked, "back": inverse}
    check_in_c([CaseInC(b.program(), {**feeds, "counts": np.arange(9)}, expected, "chosen")])


@needs_compiler
def test_strings_are_given_as_their_numbers() -> None:
    b = ProgramBuilder()
    x = b.buffer((3,), np.int64)
    b.input("x", x, "str", (3,), labels=Labels(("a */", "b"), (5, 6), -1))
    b.output("y", x, np.int64, (3,))
    given = np.array([5, -1, 6], np.int64)
    check_in_c([CaseInC(b.program(), {"x": given}, {"y": given}, "labels", as_codes=False)])
