"""Operators of places as their parts, and on the machine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.helpers.expanding import Feed, check_on_machine, check_same, model_of, real

RNG = np.random.default_rng(0)
array = np.array
FIXED: dict[str, tuple[str, dict[str, Any]]] = {
    "CumSum": ("y = CumSum(x, a)", {"a": array(1)}),
    "CumSum backwards": ("y = CumSum <reverse = 1, exclusive = 1> (x, a)", {"a": array(-1)}),
    "ReduceProd": ("y = ReduceProd <keepdims = 0> (x, a)", {"a": array([1])}),
    "ReduceProd of two axes": ("y = ReduceProd(x, a)", {"a": array([0, 1])}),
    "LpPool": ("y = LpPool <kernel_shape = [3], strides = [2], pads = [1, 1]> (x)", {}),
    "LpPool of magnitudes": ("y = LpPool <kernel_shape = [3], p = 1> (x)", {}),
    "GlobalLpPool of cubes": ("y = GlobalLpPool <p = 3> (x)", {}),
    "CenterCropPad": ("y = CenterCropPad(x, s)", {"s": array([4, 2, 9])}),
    "CenterCropPad of an axis": ("y = CenterCropPad <axes = [1]> (x, s)", {"s": array([8])}),
}  # fmt: skip


ON_MACHINE = ("CumSum", "ReduceProd of two axes", "LpPool")
"""One of each kind of parts."""


@pytest.mark.parametrize("case", FIXED)
def test_of_known_sizes(case: str) -> None:
    body, constants = FIXED[case]
    model = model_of("float[2, 5, 6] x", body, **constants)
    check_same(model, {"x": real(0, 2, 5, 6)})
    if case in ON_MACHINE:
        check_on_machine(model, [{"x": real(seed, 2, 5, 6)} for seed in range(12)], 35)


@pytest.mark.parametrize("upper", [0, 1])
@pytest.mark.parametrize("shift", [-2, 0, 3])
@pytest.mark.parametrize("sizes", ["5, 6", "N, M"])
def test_triangles(upper: int, shift: int, sizes: str) -> None:
    model = model_of(f"float[2, {sizes}] x", f"y = Trilu <upper = {upper}> (x, k)", k=array(shift))
    check_same(model, {"x": real(0, 2, 5, 6)})


@pytest.mark.parametrize("upper", [0, 1])
@pytest.mark.parametrize("kind", ["bool", "int32"])
def test_triangles_of_truths_behind_a_computed_diagonal(upper: int, kind: str) -> None:
    body = f"s = Size(z)  k = Sub(s, two)  y = Trilu <upper = {upper}> (x, k)"
    model = model_of(f"{kind}[N, M] x, float[P] z", body, f"{kind} y", two=array(2))
    check_same(model, {"x": RNG.integers(0, 2, (5, 6)).astype(kind), "z": real(0, 4)})


@pytest.mark.parametrize("attributes", ["", "<reverse = 1>", "<exclusive = 1>", "<reverse = 1, exclusive = 1>"])
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("kind", ["float", "int64", "int32"])
def test_running_sums_of_unknown_length(attributes: str, axis: int, kind: str) -> None:
    model = model_of(f"{kind}[N, T, U] x", f"y = CumSum {attributes} (x, a)", f"{kind} y", a=array(axis))
    x = real(0, 2, 5, 6) if kind == "float" else RNG.integers(-4, 9, (2, 5, 6)).astype(kind)
    check_same(model, {"x": x})


def test_positions_that_a_mask_counts() -> None:
    body = "c = CumSum(m, one)  p = Mul(c, m)  e = Gather(table, p)  y = Add(e, x)"
    model = model_of("int64[N, T] m, float[N, T, 4] x", body, one=array(1), table=real(1, 60, 4))
    lengths = [int(length) for length in RNG.integers(3, 12, 9)] + [40, 50, 20]
    feeds: list[Feed] = [
        {"m": RNG.integers(0, 2, (2, length)), "x": real(length, 2, length, 4)} for length in lengths
    ]
    check_on_machine(model, feeds, 35)


def test_losses_are_written_out() -> None:
    body = 'y = SoftmaxCrossEntropyLoss <reduction = "none"> (x, i)'
    model = model_of("float[4, 5] x, int64[4] i", body)
    feeds: list[Feed] = [{"x": real(seed, 4, 5), "i": RNG.integers(0, 5, 4)} for seed in range(12)]
    check_on_machine(model, feeds, 25)
