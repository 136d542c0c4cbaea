"""Simplified walks visit the same elements; those whose order matters in the same order."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from qcompiler.runtime.binding.strided_walks import simplified

axis = st.tuples(
    st.integers(1, 3), st.sampled_from([0, 1, 2, 3, 4, 6, 12, -1, -3]), st.sampled_from([0, 1, 2, 3, 4, 6, 12])
)


def visited(values: dict[str, int], names: str) -> list[tuple[int, ...]]:
    places = itertools.product(*(range(values[f"d{i}"]) for i in range(6)))
    return [tuple(sum(p * values[f"{name}_s{i}"] for i, p in enumerate(place)) for name in names) for place in places]


def fields(axes: list[tuple[int, int, int]], names: str) -> dict[str, int]:
    full = [(1, 5, 7)] * (6 - len(axes)) + axes
    return {f"d{i}": a[0] for i, a in enumerate(full)} | {
        f"{name}_s{i}": a[1 + k] for i, a in enumerate(full) for k, name in enumerate(names)
    }


@given(st.lists(axis, max_size=6))
def test_elementwise_walks_keep_their_order(axes: list[tuple[int, int, int]]) -> None:
    values = fields(axes, "ab")
    assert visited(simplified("binary", values), "ab") == visited(values, "ab")


@given(st.lists(axis, max_size=6))
def test_copies_keep_their_elements(axes: list[tuple[int, int, int]]) -> None:
    values = fields(axes, "xy")
    assert sorted(visited(simplified("move", values), "xy")) == sorted(visited(values, "xy"))


def test_an_image_to_nhwc_runs_along_its_pixels() -> None:
    values = simplified("move", fields([(224, 224, 672), (224, 1, 3), (3, 50176, 1)], "xy"))
    assert [values[f"d{i}"] for i in range(6)] == [1, 1, 1, 1, 3, 50176]
    assert (values["x_s5"], values["y_s5"]) == (1, 3)


def test_a_dense_copy_is_one_run() -> None:
    values = simplified("move", fields([(2, 12, 12), (3, 4, 4), (4, 1, 1)], "xy"))
    assert (values["d5"], values["x_s5"], values["y_s5"]) == (24, 1, 1)


def test_empty_walks_and_other_opcodes_are_left_alone() -> None:
    empty = fields([(0, 1, 1)], "xy")
    assert simplified("move", empty) == empty
    assert simplified("fill", {"count": 3}) == {"count": 3}
