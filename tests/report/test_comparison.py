"""Where two models part, of figures that are given."""

from __future__ import annotations

import numpy as np
import pytest

from qcompiler.report.comparison import Parting, SharedTensor, along, is_text, part
from tests.helpers.graphs import graph_of

WAYS = """g (float[4] x, float[4] z) => (float[4] y) {
  k = Constant<value_floats = [1.0, 2.0, 3.0, 4.0]>()
  c = Neg(k) a = Relu(x) b = Neg(a) s = Add(b, c) h = Exp(s) p = Softmax(h) y = Add(p, z) }"""


def tensors(*figures: float | None) -> list[SharedTensor]:
    """A chain."""
    found, last = [], 200.0
    for place, value in enumerate(figures):
        found.append(SharedTensor(f"t{place}", "", "", "", value, value, value, last))
        last = last if value is None else value
    return found


@pytest.mark.parametrize(
    ("figures", "expected", "place", "words"),
    [
        ((200.0, 200.0), None, None, ""),
        ((), None, None, ""),
        ((None, 200.0), None, None, ""),
        ((43.0, 41.0, 15.0, 5.0), Parting(0, 2, 2), 2, "part first at"),
        ((43.0, 19.0, 18.0, 3.0), Parting(0, 1, 1), 1, "part first at"),
        ((43.0, 38.0, 26.0, 25.0), Parting(0, None, 2), 2, "fall apart most at"),
        ((200.0, 70.0, 60.0), Parting(1, None, None), 1, "differ first at"),
        ((200.0, 42.0, 39.5), Parting(1, None, None), 1, "differ first at"),
        ((200.0, 45.0, 41.0, 19.9), Parting(1, 3, 3), 3, "part first at"),
        ((30.0, None, 19.0), Parting(0, 2, 2), 2, "part first at"),
    ],
)
def test_the_place(
    figures: tuple[float | None, ...], expected: Parting | None, place: int | None, words: str
) -> None:
    found = part(tensors(*figures))
    assert found == expected
    if found is not None:
        assert (found.place, found.meaning) == (place, words)


def test_every_tensor_knows_what_it_reads_and_constants_are_none() -> None:
    figures = {"c": 5.0, "a": 60.0, "s": 30.0, "h": 9.0, "p": 8.0, "y": 7.0}
    found = along(graph_of(WAYS), {"a": 61.0}, figures)
    assert [each.tensor for each in found] == ["a", "s", "h", "p", "y"]
    assert [each.reads_db for each in found] == [200.0, 60.0, 30.0, 9.0, 8.0]
    assert [each.shown_db for each in found] == [60.0, 30.0, 9.0, 8.0, 7.0]
    assert [each.sqnr_db for each in found] == [61.0, None, None, None, None]
    assert [each.fall_db for each in found] == [0.0, 10.0, 21.0, 1.0, 1.0]


def test_an_error_that_nothing_behind_it_shows_is_none() -> None:
    """Scores that a mask hides: `h` is far off, what the Softmax writes is not."""
    figures = {"a": 60.0, "s": 50.0, "h": -9.0, "p": 35.0, "y": 15.0}
    found = along(graph_of(WAYS), {}, figures)
    assert [each.shown_db for each in found] == [60.0, 50.0, 35.0, 35.0, 15.0]
    assert part(found) == Parting(0, 4, 4)
    figures["p"] = 3.0
    assert part(along(graph_of(WAYS), {}, figures)) == Parting(0, 2, 2)


def test_an_output_shows_its_error_and_one_reader_is_enough() -> None:
    text = "g (float[4] x) => (float[4] a, float[4] c) { a = Neg(x) b = Exp(a) c = Neg(b) d = Relu(b) e = Neg(d) }"
    figures = {"a": 3.0, "b": 5.0, "c": 50.0, "d": 9.0, "e": 60.0}
    found = along(graph_of(text), {}, figures)
    assert [each.shown_db for each in found] == [3.0, 9.0, 50.0, 60.0, 60.0]


def test_a_body_reads_what_it_captures() -> None:
    text = """g (float[4] x, bool q) => (float[4] y) {
      a = Relu(x)
      y = If(q) <then_branch = t () => (float[4] u) { u = Neg(a) }, else_branch = e () => (float[4] v) { v = Exp(a) }>
    }"""
    found = along(graph_of(text), {}, {"a": 12.0, "y": 11.0})
    assert [(each.tensor, each.reads_db) for each in found] == [("a", 200.0), ("y", 12.0)]


def test_texts() -> None:
    assert is_text(np.array(["a"]))
    assert is_text(np.array(["a", "b"], object))
    assert not is_text(np.array([{"a": 1}], object))
    assert not is_text(np.zeros(3))
