"""Floats that become truth values or whole numbers, on the machine."""

from __future__ import annotations

import numpy as np
import pytest

from qcompiler.api import Options, compile
from qcompiler.errors import NoIntegerFormError
from tests.helpers.expanding import Feed, check_on_machine, model_of, real

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("also", ["", "t = Mul(h, m)  "])
def test_a_mask_of_floats_is_a_condition(also: str) -> None:
    body = f"c = Cast <to = 9> (m)  h = MatMul(x, w)  {also}y = Where(c, {'t' if also else 'h'}, x)"
    model = model_of("float[4, 6] x, float[4, 6] m", body, w=real(7, 6, 6))
    feeds: list[Feed] = [
        {"x": real(seed, 4, 6), "m": RNG.integers(0, 2, (4, 6)).astype(np.float32)} for seed in range(12)
    ]
    check_on_machine(model, feeds, 30)


def test_a_place_computed_from_data_is_cut_off_as_by_the_model() -> None:
    body = "h = MatMul(x, w)  s = Sigmoid(h)  t = Mul(s, five)  i = Cast <to = 7> (t)  y = Gather(table, i)"
    table = np.arange(5, 10, dtype=np.float32)
    model = model_of("float[8, 6] x", body, w=3 * real(7, 6, 3), five=np.float32(4.99), table=table)
    check_on_machine(model, [{"x": real(seed, 8, 6)} for seed in range(12)], 20)


def test_values_of_whole_numbers_in_order_are_refused_in_one_line() -> None:
    """A graph that was not made for the machine may read them; the machine has their places alone."""
    body = "h = MatMul(x, w)  v, i = TopK(n, k)  u = Cast <to = 1> (v)  y = Mul(h, u)"
    model = model_of("float[4, 6] x, int64[6] n", body, w=real(7, 6, 6), k=np.array([6]))
    compiled = compile(model, data=[{"x": real(0, 4, 6), "n": np.arange(6)}] * 4, options=Options(0))
    with pytest.raises(NoIntegerFormError, match=r"TopK.*'v' has no integer form"):
        _ = compiled.program
