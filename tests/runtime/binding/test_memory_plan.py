"""Buffers in the arena."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.runtime.binding.memory_plan import ALIGNMENT, MAX_ARENA, Life, peak_bytes, place
from qcompiler.runtime.errors import ProgramError

lives = st.tuples(st.integers(-1, 20), st.integers(0, 8)).map(lambda t: Life(t[0], t[0] + t[1]))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2000), st.one_of(st.none(), lives)), max_size=25))
def test_buffers_alive_together_never_overlap(items: list[tuple[int, Life | None]]) -> None:
    sizes, spans = [size for size, _ in items], [life for _, life in items]
    offsets, total = place(sizes, spans)
    used = [(offsets[i], offsets[i] + sizes[i], spans[i]) for i in range(len(items)) if spans[i] and sizes[i]]
    for i, (start, end, life) in enumerate(used):
        assert life is not None
        assert start % ALIGNMENT == 0
        assert end <= total
        for other_start, other_end, other in used[i + 1 :]:
            assert other is not None
            apart = life.last < other.first or other.last < life.first
            assert apart or end <= other_start or other_end <= start


def test_a_chain_needs_two_buffers() -> None:
    _, total = place([100] * 10, [Life(i - 1, i) for i in range(10)])
    assert total == 2 * 128


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2000), st.one_of(st.none(), lives)), max_size=12))
def test_the_peak_is_that_of_the_worst_instruction_and_no_plan_is_below_it(
    items: list[tuple[int, Life | None]],
) -> None:
    sizes, spans = [size for size, _ in items], [life for _, life in items]
    alive = [
        sum(-(-size // ALIGNMENT) * ALIGNMENT for size, life in items if life and life.first <= step <= life.last)
        for step in range(-1, 30)
    ]
    assert peak_bytes(sizes, spans, 28) == max(alive)
    assert place(sizes, spans)[1] >= max(alive)


def test_an_arena_beyond_the_limit_is_refused() -> None:
    with pytest.raises(ProgramError, match="the arena would need"):
        place([MAX_ARENA + 1], [Life(0, 1)])
