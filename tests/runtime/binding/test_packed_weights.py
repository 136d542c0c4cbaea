"""Packing: the vectors of scales that kernels read."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qcompiler.runtime.binding.panels import scale_vectors
from qcompiler.runtime.instructions.instruction import SHIFT_BASE

FACTORS = st.one_of(
    st.integers(-(2**31), 2**31 - 1),
    st.integers(0, 30).map(lambda bits: 1 << bits),
    st.sampled_from([0, 1, -1, 2**30 - 1, 2**30]),
)


@given(st.lists(st.tuples(FACTORS, st.integers(0, 62)), min_size=1, max_size=20).map(lambda pairs: pairs * 2))
def test_factors_are_doubled_one_by_one_as_long_as_they_and_their_shifts_fit(pairs: list[tuple[int, int]]) -> None:
    doubled = []
    for m, n in pairs:
        for _ in range(30):
            if abs(m) < 1 << 30 and n < 62:
                m, n = 2 * m, n + 1
        doubled.append((m, n))
    m, odd, power, shift, left = scale_vectors(*(np.array(values) for values in zip(*pairs, strict=True)))
    for i, (expected_m, expected_n) in enumerate(doubled):
        n = max(expected_n, SHIFT_BASE)
        assert (m[i], shift[i], power[i]) == (expected_m, n - 32, np.int64(1 << (n - SHIFT_BASE)).astype(np.int32))
        assert left[i] == (0 if expected_m == 0 else min(max(SHIFT_BASE - expected_n, 0), 30))
        assert odd[i] == (doubled[i + 1][0] if i % 2 == 0 else 0)
