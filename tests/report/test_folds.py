"""Feeds that were fitted to are judged with the ranges that the others give."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest

import qcompiler
from qcompiler.feeds.selection import fold_of, spread_places
from qcompiler.graph.ir import Feed, copy_of
from qcompiler.graph.runner import Runner
from qcompiler.manager import Manager
from qcompiler.pass_base import Context
from qcompiler.passes.activations.quantize_activations import QuantizeActivations
from qcompiler.report.folds import runs_of_folds
from qcompiler.report.honest import FARTHEST, Judge
from tests.helpers.graphs import graph_of

TEXT = "g (float[N, 4] x) => (float[N, 3] y) { a = MatMul(x, w)  y = Relu(a) }"
RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((4, 3)).astype(np.float32)


def feeds(count: int, loud: int = -1) -> list[Feed]:
    return [
        {"x": ((8 if index == loud else 1) * RNG.uniform(-1, 1, (2, 4))).astype(np.float32)} for index in range(count)
    ]


@pytest.mark.parametrize(("count", "folds"), [(8, 4), (9, 4), (31, 4), (4, 4)])
def test_folds_are_runs_of_about_equal_length(count: int, folds: int) -> None:
    found = [fold_of(index, count, folds) for index in range(count)]
    assert found == sorted(found)
    sizes = np.bincount(found, minlength=folds)
    assert sizes.size == folds
    assert sizes.max() - sizes.min() <= 1
    assert spread_places(count, 3) == [0, round((count - 1) / 2), count - 1]
    assert spread_places(0, 3) == []


def test_a_feed_beyond_all_others_is_clipped_where_it_is_left_out() -> None:
    data, graph = feeds(8, loud=5), graph_of(TEXT, w=WEIGHT)
    ctx = Context(data=data, held=feeds(2), folds=4)
    Manager([QuantizeActivations()]).run(graph, ctx)
    left_out = runs_of_folds(graph, ctx.final_grids, ctx.fold_grids)(fold_of(5, 8, 4))
    real = Runner(graph_of(TEXT, w=WEIGHT)).run(data[5])["y"]
    clipped, held = (np.abs(run(data[5])["y"] - real).max() for run in (left_out, Runner(graph).run))
    assert clipped > 10 * held


def test_the_farthest_feed_counts_as_a_few_of_the_next() -> None:
    zero, one = np.zeros((1, 2), np.float32), np.ones((1, 2), np.float32)
    answered = [({"x": zero + index}, {"y": one}) for index in range(10)]
    judge = Judge(answered[:2], answered[2:], {}, folds=[0] * 4 + [1] * 4)
    errors = dict(enumerate([0.1] * 9 + [10.0]))

    def run(feed: Feed) -> dict[str, np.ndarray]:
        return {"y": one + np.float32(errors[int(feed["x"][0, 0])])}

    stated = judge.figures(run, lambda _fold: run)[0].sqnr_db
    assert stated == pytest.approx(-10 * np.log10(0.01 * (1 + (7 + FARTHEST) / 8) / 2), abs=1e-3)


def test_feeds_held_out_count_as_much_as_all_that_weights_were_fitted_to() -> None:
    zero, one = np.zeros((1, 2), np.float32), np.ones((1, 2), np.float32)
    answered = [({"x": zero + index}, {"y": one}) for index in range(10)]
    judge = Judge(answered[:2], answered[2:], {}, folds=[0] * 4 + [1] * 4)

    def run(feed: Feed) -> dict[str, np.ndarray]:
        return {"y": one + np.float32(0.2 if feed["x"][0, 0] < 2 else 0.1)}

    stated = judge.figures(run, lambda _fold: run)[0].sqnr_db
    assert stated == pytest.approx(-10 * np.log10((0.04 + 0.01) / 2), abs=1e-3)


def test_few_numbers_are_judged_in_folds() -> None:
    graph = graph_of(TEXT, w=WEIGHT)
    few = qcompiler.compile(gs.export_onnx(copy_of(graph)), data=feeds(40))
    assert few.report.outputs[0].feeds == 8
    assert 20 < few.report.output_sqnr_db["y"] < 60
