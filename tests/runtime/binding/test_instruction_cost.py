"""Costs of instructions: counted by what they compute, and only that; ``benchmarks.instruction_cost`` knows each."""

from __future__ import annotations

import ast
import inspect
from typing import Any

import pytest

from benchmarks import instruction_cost as benchmark
from qcompiler.runtime.binding import instruction_cost
from qcompiler.runtime.binding.division import DIVIDERS
from qcompiler.runtime.binding.instruction_cost import nanoseconds_of
from qcompiler.runtime.instructions.instruction import Element
from qcompiler.runtime.instructions.opcodes import BY_NAME

SIZES = {
    "conv": ("batch", "out_h", "out_w", "out_c", "kernel_h"), "conv_transpose": ("batch", "out_h", "in_c", "out_c"),
    "gemm": ("rows", "cols"), "matmul": ("b2", "rows", "cols"), "max_pool": ("batch", "out_w", "in_c", "kernel_w"),
    "softmax": ("outer", "k", "inner"), "table": ("count",), "binary": ("d1", "d5"), "requant": ("count", "lines"),
    "resize_linear": ("batch", "out_h", "out_w", "in_c"),
}  # fmt: skip


def fields(name: str, **given: int) -> dict[str, Any]:
    sizes = {field.name: int(Element.U8) if field.name.endswith("_type") else 8 for field in BY_NAME[name].fields}
    return {**sizes, "groups": 1, **given} if "groups" in sizes else {**sizes, **given}


@pytest.mark.parametrize(("name", "size"), [(name, size) for name, sizes in SIZES.items() for size in sizes])
def test_twice_the_size_costs_twice_as_much(name: str, size: str) -> None:
    once, twice = (nanoseconds_of(name, fields(name, **{size: count})) for count in (64, 128))
    assert once > 0
    assert twice == pytest.approx(2 * once, rel=0.35 if size.startswith("kernel") else 1e-9)


@pytest.mark.parametrize("name", sorted(DIVIDERS))
def test_everything_that_can_be_divided_has_a_cost(name: str) -> None:
    assert nanoseconds_of(name, fields(name)) > 0


def test_a_product_of_one_row_costs_the_reading_of_its_weights() -> None:
    one = nanoseconds_of("gemm", fields("gemm", rows=1, k=1024, cols=1024))
    assert one == 1024 * 1024 * instruction_cost.WEIGHT_COST
    assert nanoseconds_of("gemm", fields("gemm", rows=2, k=1024, cols=1024)) == one


def test_groups_and_bytes_cost_less() -> None:
    dense, grouped = (nanoseconds_of("conv_transpose", fields("conv_transpose", groups=groups)) for groups in (1, 8))
    assert dense == 8 * grouped
    wide = nanoseconds_of("table", fields("table", x_type=int(Element.I16), y_type=int(Element.I16)))
    assert nanoseconds_of("table", fields("table")) < wide


def test_the_benchmark_measures_every_cost() -> None:
    """All but what only requantizes: compiled models have it inside other instructions."""
    tree = ast.parse(inspect.getsource(instruction_cost))
    names = {
        target.id
        for node in tree.body if isinstance(node, ast.Assign)
        for place in node.targets for target in ast.walk(place) if isinstance(target, ast.Name)
    }  # fmt: skip
    costs = {name for name in names if name.endswith("_COST")}
    single = {f'{table}["{key}"]' for table in ("ELEMENT_COST", "TAP_COST") for key in getattr(instruction_cost, table)}
    wanted = single | costs - {"ELEMENT_COST", "TAP_COST"}
    measured = {*benchmark.simple_cases(), *(name for pair in benchmark.PAIRS for name in pair[:2])}
    assert wanted - {name.partition(" (")[0] for name in measured} == {'ELEMENT_COST["requant"]'}
    assert all(benchmark.value_of(name) > 0 for name in measured)
