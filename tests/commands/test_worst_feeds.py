"""The feeds on which two models are farthest apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from qcompiler.commands.executors import OnnxExecutor
from qcompiler.commands.worst_feeds import WORST, Answered, worst_feeds
from qcompiler.graph.ir import Feed, Graph
from qcompiler.report.comparison import WorstFeed
from tests.helpers.diff_models import model_of

ROWS = "g (float[N, 4] x) => (float[N, 4] y) { y = Tanh(x) }"
MIXING = "g (float[N, 4] x) => (float[N, 4] y) { s = ReduceSum<keepdims = 1>(x, axis) y = Add(x, s) }"
FIXED = "g (float[6, 4] x) => (float[6, 4] y) { y = Tanh(x) }"
OTHER = "g (float[N, 4] x, float[M, 4] z) => (float[N, 4] y) { y = Tanh(x) }"


def found(folder: Path, text: str, feeds: list[Feed], harm: list[np.ndarray]) -> list[WorstFeed]:
    """The worst feeds where the second model's ``y`` is moved by ``harm``."""
    model = model_of(text)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0]), "axis"))
    onnx.save(model, folder / "m.onnx")
    side = OnnxExecutor(folder / "m.onnx")
    answers = [side.run(feed) for feed in feeds]
    moved = [{"y": answer["y"] + by} for answer, by in zip(answers, harm, strict=True)]
    answered = [Answered(*each) for each in zip(feeds, answers, moved, strict=True)]
    return worst_feeds(side.inputs, side, answered)


def of_rows(seed: int, count: int, rows: int) -> tuple[list[Feed], list[np.ndarray], list[tuple[int, int]]]:
    """Feeds, a growing harm in random rows, and these rows, worst first."""
    rng = np.random.default_rng(seed)
    feeds: list[Feed] = [{"x": rng.uniform(1, 2, (rows, 4)).astype(np.float32)} for _ in range(count)]
    harm = [np.full((rows, 4), 1e-4, np.float32) for _ in range(count)]
    places = [(int(at) // rows, int(at) % rows) for at in rng.permutation(count * rows)[:WORST]]
    for rank, (feed, row) in enumerate(places):
        harm[feed][row] = 2.0**-rank
    return feeds, harm, places


@pytest.mark.parametrize("seed", range(5))
def test_independent_rows_are_judged_by_themselves(tmp_path: Path, seed: int) -> None:
    feeds, harm, places = of_rows(seed, 3, 6)
    worst = found(tmp_path, ROWS, feeds, harm)
    assert [(each.feed, each.row) for each in worst] == places
    for each in worst:
        assert each.row is not None
        np.testing.assert_array_equal(each.given["x"], feeds[each.feed]["x"][each.row:each.row + 1])
        np.testing.assert_array_equal(each.second["y"] - each.first["y"] > 0.1, True)


@pytest.mark.parametrize("text", [MIXING, FIXED])
def test_rows_that_depend_on_each_other_or_are_no_batch_stay_together(tmp_path: Path, text: str) -> None:
    feeds, harm, places = of_rows(1, 3, 6)
    worst = found(tmp_path, text, feeds, harm)
    assert worst[0].feed == places[0][0]
    assert {each.row for each in worst} == {None}
    assert len(worst) == 3


def test_two_inputs_of_different_batches_are_not_cut(tmp_path: Path) -> None:
    feeds, harm, _ = of_rows(1, 2, 6)
    feeds = [{**feed, "z": feed["x"]} for feed in feeds]
    assert {each.row for each in found(tmp_path, OTHER, feeds, harm)} == {None}


def test_feeds_of_one_row_have_no_rows(tmp_path: Path) -> None:
    feeds, harm, places = of_rows(2, 6, 1)
    assert [(each.feed, each.row) for each in found(tmp_path, ROWS, feeds, harm)] == [(at, None) for at, _ in places]


def test_other_shapes_are_worst_of_all(tmp_path: Path) -> None:
    onnx.save(model_of(ROWS), tmp_path / "m.onnx")
    unused, value = OnnxExecutor(tmp_path / "m.onnx"), np.ones((2, 2), np.float32)
    feeds = [Answered({}, {"y": value}, {"y": value * 1.5}), Answered({}, {"y": value}, {"y": value[:1]})]
    assert [each.feed for each in worst_feeds(Graph(), unused, feeds)] == [1, 0]
