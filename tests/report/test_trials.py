"""Inputs that calibration did not show are tried, and the report says what becomes of them."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest

import qcompiler
from qcompiler.feeds.unseen import unseen_feeds
from qcompiler.report.trials import is_lost
from tests.helpers.graphs import graph_of


def test_inputs_are_changed_in_what_their_shapes_and_names_admit() -> None:
    graph = graph_of(
        """g (float[B, L, 4] x, int64[B, L] attention_mask, int64[B, L] position_ids, float[B, 2, P, 3] past_key,
        float[4] bias)
            => (float[B, L, 4] y) {
            y = Add(x, bias) }"""
    )
    feed = {
        "x": np.ones((1, 6, 4), np.float32), "attention_mask": np.ones((1, 6), np.int64),
        "position_ids": np.arange(6)[None],
        "past_key": np.ones((1, 2, 5, 3), np.float32), "bias": np.zeros(4, np.float32),
    }  # fmt: skip
    found = dict(unseen_feeds(graph, [feed]))
    kinds = [what.split(":")[0] for what in found]
    assert kinds == [
        "padding",
        "half the length",
        "twice the length",
        "half the length",
        "twice the length",
        "an empty cache",
        "later positions",
    ]
    padded = next(value for what, value in found.items() if what.startswith("padding"))
    assert padded["attention_mask"].tolist() == [[1, 1, 1, 0, 0, 0]]
    longer = found["twice the length: L = 12"]
    assert longer["x"].shape == (1, 12, 4)
    assert longer["position_ids"].tolist() == [list(range(12))]
    assert found["an empty cache: P = 0"]["past_key"].shape == (1, 2, 0, 3)
    assert found["later positions: 'position_ids' up to 11"]["position_ids"].tolist() == [list(range(6, 12))]
    assert "bias" in found["half the length: L = 3"]


def test_a_batch_of_two_is_tried_where_every_input_has_one() -> None:
    graph = graph_of("g (float[B, 4] x) => (float[B, 4] y) { y = Relu(x) }")
    feeds = [{"x": np.full((1, 4), value, np.float32)} for value in (1, 2)]
    assert dict(unseen_feeds(graph, feeds))["a batch of 2"]["x"][:, 0].tolist() == [1, 2]


@pytest.mark.parametrize("seed", range(3))
def test_positions_beyond_those_seen_are_tried_and_losses_told(seed: int) -> None:
    rng = np.random.default_rng(seed)
    width = int(rng.integers(4, 9))
    graph = graph_of(
        f"""g (float[1, L, {width}] x, int64[1, L] position_ids) => (float[1, L, {width}] y) {{
            f = Cast <to = 1> (position_ids)  u = Unsqueeze(f, axis)  p = Mul(u, slope)  a = Add(x, p)
            y = MatMul(a, w) }}""",
        axis=np.array([2]), slope=rng.uniform(0.05, 0.2, width).astype(np.float32),
        w=rng.standard_normal((width, width)).astype(np.float32),
    )  # fmt: skip
    feeds = [
        {"x": rng.standard_normal((1, 8, width)).astype(np.float32), "position_ids": np.arange(8)[None]}
        for _ in range(20)
    ]
    compiled = qcompiler.compile(gs.export_onnx(graph), data=feeds)
    assert any(trial.what.startswith("later positions") for trial in compiled.report.trials)
    for trial in compiled.report.trials:
        assert is_lost(trial) == any(trial.what in warning for warning in compiled.report.warnings)
        assert not trial.cure or is_lost(trial)


def test_a_setting_that_all_feeds_share_is_changed() -> None:
    graph = graph_of("g (float[B, 9] x, float[1] speed, float[B, 1] level) => (float[B, 9] y) { y = Mul(x, speed) }")
    feeds = [
        {"x": np.ones((2, 9), np.float32), "speed": np.array([0.5], np.float32), "level": np.float32([[level], [3]])}
        for level in (1, 2)
    ]
    found = dict(unseen_feeds(graph, feeds))
    assert [what for what in found if what.startswith("another setting")] == [
        "another setting: 'speed' 1 instead of 0.5"
    ]
    assert found["another setting: 'speed' 1 instead of 0.5"]["speed"].tolist() == [1.0]
