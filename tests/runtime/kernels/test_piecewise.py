"""Piecewise linear functions against Python integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.runtime import requant as spec
from qcompiler.runtime.errors import ProgramError
from qcompiler.runtime.instructions.piecewise_linear import Piecewise
from tests.runtime.checked import run_one

FEW = settings(max_examples=4, deadline=None)


def code_of(x: int, lines: Piecewise) -> int:
    """The definition, on Python integers."""
    segments = len(lines.base)
    place = min(max(x, lines.first), lines.first + segments * 2**lines.width_bits - 1) - lines.first
    segment, step = divmod(place, 2**lines.width_bits)
    value = int(lines.base[segment]) * 2**lines.width_bits + int(lines.slope[segment]) * step
    return min(max(spec.rounding_shift(value, lines.width_bits + lines.fraction), lines.lo), lines.hi)


@pytest.mark.parametrize("segments", [64, 128, 256])
@pytest.mark.parametrize("y_type", [np.uint8, np.int16])
@FEW
@given(
    seed=st.integers(0, 2**32 - 1), width_bits=st.integers(0, 10), fraction=st.integers(0, 7), count=st.integers(0, 150)
)
def test_piecewise(y_type: Any, segments: int, seed: int, width_bits: int, fraction: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    base, slope = (rng.integers(-32768, 32768, segments).astype(np.int16) for _ in range(2))
    base[:2], slope[:2] = (-32768, 32767), (32767, -32768)
    info = np.iinfo(y_type)
    lo, hi = sorted(int(limit) for limit in rng.integers(info.min, info.max + 1, 2))
    lines = Piecewise(base, slope, int(rng.integers(-32768, 32768)), width_bits, fraction, lo, hi)
    x = rng.integers(-32768, 32768, count).astype(np.int16)
    x[: count // 2] = np.clip(lines.first + rng.integers(-50, segments << width_bits, count // 2), -32768, 32767)
    numbers = {name: getattr(lines, name) for name in ("first", "width_bits", "fraction", "lo", "hi")}
    y = run_one(
        "piecewise",
        {"x": x},
        {"y": ((count,), y_type)},
        base=base,
        slope=slope,
        count=count,
        segments=segments,
        **numbers,
    )["y"]
    assert y.tolist() == [code_of(int(code), lines) for code in x]
    assert y.tolist() == lines.codes()[x.astype(np.int64) + 32768].tolist()


def test_another_number_of_segments_is_refused() -> None:
    lines = np.zeros(65, np.int16)
    x = np.zeros(4, np.int16)
    with pytest.raises(ProgramError, match="65 segments; there may be 64, 128, 256"):
        run_one(
            "piecewise",
            {"x": x},
            {"y": ((4,), np.uint8)},
            base=lines,
            slope=lines,
            count=4,
            segments=65,
            first=0,
            width_bits=0,
            fraction=0,
            lo=0,
            hi=1,
        )
