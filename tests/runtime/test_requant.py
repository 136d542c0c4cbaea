"""The scalar specification itself: multipliers are as close as 31 bits allow, roundings are what they say."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcompiler.runtime import requant as spec
from qcompiler.runtime.errors import MachineError

reals = st.floats(2.0**-60, 2.0**29, allow_nan=False) | st.floats(-(2.0**29), -(2.0**-60))


@given(reals)
def test_multiplier_is_as_close_as_its_bits_allow(real: float) -> None:
    m, n = spec.multiplier(real)
    assert 0 < abs(m) < 2**31
    assert 1 <= n <= 62
    error = abs(Fraction(m, 2**n) - Fraction(real))
    assert error <= max(abs(Fraction(real)) / 2**31, Fraction(1, 2**63))


@pytest.mark.parametrize(
    ("real", "expected"),
    [
        (0.0, (0, 1)),
        (0.5, (2**30, 31)),
        (1.0, (2**30, 30)),
        (-1.0, (-(2**30), 30)),
        (1 - 2.0**-40, (2**30, 30)),
        (2.0**-62, (1, 62)),
        (2.0**-63, (1, 62)),
        (2.0**-70, (0, 62)),
        (2.0**29 * 1.5, (1610612736, 1)),
    ],
)
def test_multiplier_at_its_edges(real: float, expected: tuple[int, int]) -> None:
    assert spec.multiplier(real) == expected


@pytest.mark.parametrize("real", [2.0**31, -(2.0**40), math.inf, math.nan])
def test_multiplier_refuses_what_it_cannot_hold(real: float) -> None:
    with pytest.raises(MachineError):
        spec.multiplier(real)


@given(st.floats(2.0**-30, 32.0), st.integers(8, 31))
def test_short_multipliers(real: float, bits: int) -> None:
    m, n = spec.multiplier(real, bits)
    assert 0 < m < 2**bits
    assert abs(Fraction(m, 2**n) - Fraction(real)) <= Fraction(real) / 2**bits


@given(st.integers(-(2**31), 2**31 - 1), st.integers(-(2**31) + 1, 2**31 - 1), st.integers(1, 62))
def test_requant_rounds_to_nearest_with_ties_up(a: int, m: int, n: int) -> None:
    assert spec.requant(a, m, n) == math.floor(Fraction(a * m, 2**n) + Fraction(1, 2))


def test_a_shift_of_zero_changes_nothing() -> None:
    assert [spec.rounding_shift(v, 0) for v in (-3, 0, 7)] == [-3, 0, 7]


@given(
    st.integers(-(2**16), 2**16),
    st.integers(-(2**16), 2**16).filter(bool),
    st.integers(1, 2**31 - 1),
    st.integers(0, 40),
)
def test_divide_rounds_the_exact_quotient(a: int, b: int, m: int, n: int) -> None:
    out = spec.Range(0, -(2**62), 2**62)
    assert spec.divide(a, b, m, n, out) == math.floor(Fraction(a * m, b * 2**n) + Fraction(1, 2))


@given(st.integers(-(2**40), 2**40), st.integers(1, 10**6), st.integers(-(2**15), 2**15), st.integers(0, 20))
def test_mean_rounds_the_exact_quotient(total: int, count: int, m: int, n: int) -> None:
    assert spec.mean_code(total, count, m, n, spec.Range(0, -(2**62), 2**62)) == math.floor(
        Fraction(total * m, count * 2**n) + Fraction(1, 2)
    )


@given(st.lists(st.integers(-32768, 32767), min_size=2, max_size=60))
def test_layernorm_is_close_to_the_real_one(x: list[int]) -> None:
    """gamma 1 and beta 0 on a grid of 2^-10."""
    count, mean = len(x), sum(x) / len(x)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in x) / count + 1 / count**2)
    got = spec.layernorm(x, [1 << 14] * count, [0] * count, 1, 24, spec.Range(0, -(2**40), 2**40))
    for v, code in zip(x, got, strict=True):
        assert abs(code / 1024 - (v - mean) / deviation) < 0.001 + 1e-5 * abs(v - mean) / deviation
